"""How long an experiment will take, before anything is measured: rough, and said to be so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.judge.asking.template import load_template
from harness.pipeline.plan import Plan
from harness.store.stage import Stage

FLOPS_PER_SECOND = 4e10
"""Of one worker on a CPU with a small model, beside the step; see `benchmarks/stages.py`."""

STEP_SECONDS = 0.012
TOKEN_SECONDS = 0.008
START_SECONDS = 6.0
CALL_SECONDS = 1.0
"""Of a judge that is asked over a network."""

LETTERS = 4
"""Of a token, in English."""

WORKER_BYTES = 600 << 20
PARENT_BYTES = 400 << 20


_PASSES = {
    "policy": 3, "sample": 4, "reference": 2, "mismatched": 2, "margins": 2, "reward-model": 6,
    "train": 6, "generate": 3,
}  # fmt: skip
"""Forward passes, or what costs as much, per text, pair or completion of a stage."""


@dataclass(frozen=True)
class Expected:
    """What a stage will take: FLOPs, and seconds on one worker."""

    flops: float
    seconds: float


@dataclass(frozen=True)
class Scale:
    """What estimates hang on: parameters of the policy, tokens of a prompt with an answer."""

    parameters: int
    tokens: int

    @classmethod
    def of(cls, plan: Plan) -> Scale:
        """From the config of a small model, or the size of a model's files."""
        b, model = plan.experiment.budget, plan.experiment.model
        if model is not None:
            files = sum(f.stat().st_size for f in Path(model).glob("*.safetensors"))
            return cls(files // 4 or 500_000_000, (b.max_prompt_tokens + b.max_response_tokens))
        small = plan.boards[0].task.small_model
        assert small is not None, "a plan without a model has a small one"
        c = small.config
        layer = 4 * c["hidden_size"] ** 2 + 3 * c["hidden_size"] * c["intermediate_size"]
        parameters = c["num_hidden_layers"] * layer + c["hidden_size"] * len(small.words)
        return cls(parameters, (b.max_prompt_tokens + b.max_response_tokens) // 4)


def expected(stage: Stage, scale: Scale, *, pairs: int, prompts: int) -> Expected:
    """FLOPs and seconds of one stage.

    Args:
        stage: any stage of a plan.
        scale: of the policy and its texts.
        pairs: training pairs.
        prompts: test prompts.
    """
    s, forward = stage.settings, 2.0 * scale.parameters * scale.tokens
    steps = _steps(stage.verb, s, pairs)
    sequences = _PASSES.get(stage.verb, 0.0) * s.get("epochs", 1) * s.get("texts", pairs)
    if stage.verb == "generate":
        answers = s["decoding"]["samples"] * len(s["decoding"]["temperatures"])
        sequences = _PASSES["generate"] * answers * prompts
    flops = forward * sequences
    drawn = TOKEN_SECONDS * s["decoding"]["max_tokens"] * 2 if "decoding" in s else 0.0
    asked = CALL_SECONDS * calls(stage, prompts) / stage.means.get("concurrency", 1)
    return Expected(flops, 0.3 + flops / FLOPS_PER_SECOND + STEP_SECONDS * steps + drawn + asked)


def calls(stage: Stage, prompts: int) -> int:
    """The most calls of a paid judge that a stage makes: equal answers are not asked."""
    if stage.verb != "judge" or stage.settings["judge"]["kind"] != "openai":
        return 0
    decoding = stage.inputs["completions"].settings["decoding"]
    answers = sum(decoding["samples"] if t else 1 for t in decoding["temperatures"])
    return 2 * prompts * answers


def call_tokens(stage: Stage, plan: Plan) -> tuple[int, int]:
    """Tokens of a call, in and out, with prompt and answers at the budget's limits: rough."""
    b, judge = plan.experiment.budget, stage.settings["judge_is"]
    template = load_template(judge["template"])
    words = (len(template.system) + len(template.user)) // LETTERS
    return words + b.max_prompt_tokens + 2 * b.max_response_tokens, template.max_tokens


def _steps(verb: str, s: Mapping[str, Any], pairs: int) -> float:
    if verb == "policy":
        return float(s["epochs"] * s["texts"] / s["per_step"])
    if verb == "train":
        return float(s["epochs"] * pairs / s["pairs_per_step"])
    return float(s["epochs"] * pairs / s["per_step"]) if verb == "reward-model" else 0.0
