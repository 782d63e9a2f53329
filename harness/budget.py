"""What every cell of an experiment may spend, and the bill of what one did spend."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class WarmStart:
    """Supervised training of the reference policy, once per task and before all methods.

    Attributes:
        epochs: passes over the task's texts; 0 leaves the model as it is.
        texts: the most texts that are used.
        max_tokens: longer texts are cut and have no end-of-sequence token then.
    """

    epochs: int = 6
    texts: int = 8000
    per_step: int = 64
    learning_rate: float = 1e-2
    weight_decay: float = 0.01
    max_tokens: int = 128


@dataclass(frozen=True)
class RewardModel:
    """Training of the reward model, once per preference data set, for methods that read margins."""

    epochs: int = 3
    per_step: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.01


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters in place of full fine-tuning.

    Attributes:
        rank: 0 means full fine-tuning.
        targets: module names separated by commas, or "all-linear": all but the head.
    """

    rank: int = 0
    alpha: float = 32.0
    targets: str = "all-linear"


@dataclass(frozen=True)
class Budget:
    """The same for every method, setting and seed of an experiment.

    Attributes:
        unit: "data": every cell trains on the same pairs for as many steps; "flops": every cell
            may be billed as much as the reference method is for them.
        trials: settings that are tried for each method before its tuned row; 1: no tuning.
        learning_rates: what the methods' grids are crossed with.
        pairs: preference pairs for training; validation_pairs are never trained on.
        pairs_per_step: pairs in one optimizer step; micro_pairs of them at a time in memory.
        overlong: what happens to an answer over the limit; see `harness.data.tokens.Limits`.
        test_prompts: prompts that the scores are made of.
        samples: completions per test prompt.
    """

    unit: Literal["data", "flops"] = "data"
    pairs: int = 4096
    validation_pairs: int = 512
    epochs: int = 1
    pairs_per_step: int = 32
    micro_pairs: int = 32
    max_prompt_tokens: int = 64
    max_response_tokens: int = 48
    overlong: Literal["cut", "drop"] = "cut"
    learning_rate: float = 3e-4
    trials: int = 1
    learning_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip: float = 1.0
    precision: Literal["fp32", "bf16"] = "fp32"
    test_prompts: int = 200
    samples: int = 4
    warm_start: WarmStart = field(default_factory=WarmStart)
    reward_model: RewardModel = field(default_factory=RewardModel)
    lora: Lora = field(default_factory=Lora)


PRESETS: Mapping[str, Mapping[str, Any]] = {
    "small": {},
    "smoke": {
        "pairs": 64, "validation_pairs": 32, "epochs": 1, "test_prompts": 24, "samples": 2,
        "warm_start.epochs": 1, "warm_start.texts": 1024, "reward_model.epochs": 1,
    },
    "paper": {
        "pairs": 10000, "validation_pairs": 2000, "epochs": 2, "test_prompts": 2000,
        "samples": 1, "max_prompt_tokens": 32, "max_response_tokens": 176, "learning_rate": 1e-5,
        "warmup": 0.03, "weight_decay": 0.01, "beta2": 0.95, "lora.rank": 16,
        "lora.targets": "q_proj,k_proj,v_proj,o_proj", "reward_model.epochs": 12,
        "reward_model.learning_rate": 1e-5, "reward_model.per_step": 32,
        "warm_start.epochs": 5, "warm_start.learning_rate": 2e-4, "warm_start.per_step": 32,
        "warm_start.texts": 7000, "warm_start.max_tokens": 196,
    },
}  # fmt: skip
"""Named budgets: `small` minutes on two cores, `smoke` seconds (proves the way, no figure of it
means anything), `paper` the numbers of MADPO's sentiment set-up for a GPU (arXiv:2510.05342,
notebooks); experiments/madpo-sentiment.toml says what differs."""


@dataclass(frozen=True)
class ModelSize:
    """Parameters that a token is multiplied with: in the body and in the output head."""

    body: int
    head: int


@dataclass(frozen=True)
class Bill:
    """FLOPs that a method would have paid for alone, by what they were for.

    Attributes:
        training: forward and backward passes of the policy.
        reference: one pass over the pairs, for a method that reads it.
        reward: training the reward model and its margins, for a method that reads them.
        tokens: tokens through the policy's body in training.
    """

    training: int
    reference: int
    reward: int
    tokens: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.training + self.reference + self.reward


def bill(
    size: ModelSize,
    *,
    tokens: int,
    answer_tokens: int,
    data_tokens: int,
    data_answer_tokens: int,
    reads: tuple[str, ...],
    two_passes: bool,
    lora: bool,
    reward_epochs: int,
) -> Bill:
    """Two FLOPs per parameter and token forward, four backward (two where weights are frozen).

    Attention scores are left out: at a few hundred tokens they are a few per cent.

    Args:
        size: of the policy; the reward model has the same body and a head of one output.
        tokens: prompt and answer tokens of both sides, over all steps.
        answer_tokens: the answers' share of them; only these reach the head.
        data_tokens: tokens of the data set once, for the passes that are made once.
        data_answer_tokens: the answers' share of these.
        reads: what the method reads.
        two_passes: a coupled step in several micro-batches runs forward twice.
        lora: frozen weights need no gradient of their own.
        reward_epochs: passes that the reward model was trained for.
    """
    passes = (4 if lora else 6) + (2 if two_passes else 0)
    once = 2 * (size.body * data_tokens + size.head * data_answer_tokens)
    margin = bool({"margin", "rewards"} & set(reads))
    return Bill(
        training=passes * (size.body * tokens + size.head * answer_tokens),
        reference=once if "reference" in reads else 0,
        reward=(6 * reward_epochs + 2) * size.body * data_tokens if margin else 0,
        tokens=tokens,
    )
