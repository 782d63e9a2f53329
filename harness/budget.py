"""What every cell of an experiment may spend, and the bill of what one did spend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
        micro_tokens: the most tokens in memory at a time, a pair's prompt counted once; a pair that
            is longer goes alone, whole.
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
    micro_tokens: int = 16384
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
    vocabulary: int = 0


@dataclass(frozen=True)
class Tokens:
    """Tokens of some sequences: all go through the body, those of answers through the head too."""

    both: int = 0
    answers: int = 0

    def forward(self, size: ModelSize) -> int:
        """FLOPs of one forward pass: two per parameter and token.

        Attention scores are left out: at a few hundred tokens they are a few per cent.
        """
        return 2 * (size.body * self.both + size.head * self.answers)


@dataclass(frozen=True)
class Payer:
    """What of a method costs something beside its own passes.

    Attributes:
        reads: what the method reads.
        whole_step: a step in several micro-batches runs forward twice.
        reward_epochs: passes that its reward model was trained for; 0 without one.
        moving_reference: its reference is no cache but a model, and runs in every step.
    """

    reads: Sequence[str]
    whole_step: bool = False
    reward_epochs: int = 0
    moving_reference: bool = False


@dataclass(frozen=True)
class Bill:
    """FLOPs that a method would have paid for alone, by what they were for.

    Attributes:
        training: forward and backward passes of the policy.
        reference: one pass of the reference over the pairs, for a method that reads it.
        reward: training the reward model and its margins, for a method that reads them.
        mismatched: one pass of the reference over answers to other prompts.
        extra: in every step beside training: the policy's pass over answers to other prompts, a
            reference in memory, sums over the vocabulary.
        tokens: tokens through the policy's body in training.
    """

    training: int
    reference: int
    reward: int
    mismatched: int
    extra: int
    tokens: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.training + self.reference + self.reward + self.mismatched + self.extra


SUM_FLOPS = 4
"""Per entry of the vocabulary and answer token, for each sum over the vocabulary that is read."""


def bill(
    size: ModelSize,
    payer: Payer,
    *,
    steps: Tokens,
    data: Tokens,
    lora: bool,
    two_passes: bool,
    other_steps: Tokens = Tokens(),
    other_data: Tokens = Tokens(),
) -> Bill:
    """Two FLOPs per parameter and token forward, four backward (two where weights are frozen).

    Args:
        size: of the policy; the reward model has the same body and a head of one output.
        payer: what the method reads.
        steps: tokens of both sides, over all steps.
        data: tokens of the data set once, for the passes that are made once.
        lora: frozen weights need no gradient of their own.
        two_passes: a coupled step in several micro-batches runs forward twice.
        other_steps: tokens of the answers to other prompts, over all steps.
        other_data: tokens of the answers to other prompts, once.
    """
    reads, again = set(payer.reads), 2 if two_passes else 1
    extra = other_steps.forward(size) if "mismatched" in reads else 0
    if payer.moving_reference:
        extra += steps.forward(size)
    if "divergence" in reads:
        extra += again * steps.forward(size)
    sums = len(reads & {"divergence", "confidence"})
    extra += again * sums * SUM_FLOPS * size.vocabulary * steps.answers
    once = 0
    # One pass gives log-probs and entropies.
    if "entropy" in reads or ("reference" in reads and not payer.moving_reference):
        once = data.forward(size)
        once += SUM_FLOPS * size.vocabulary * data.answers * ("entropy" in reads)
    margin = bool(reads & {"margin", "rewards"})
    return Bill(
        training=((2 if lora else 3) + (again - 1)) * steps.forward(size),
        reference=once,
        reward=(6 * payer.reward_epochs + 2) * size.body * data.both if margin else 0,
        mismatched=other_data.forward(size) if "mismatched" in reads else 0,
        extra=extra,
        tokens=steps.both,
    )
