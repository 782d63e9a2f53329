"""Who judges and who generates: what an experiment may ask of models that are served elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

JudgeKind = Literal["auto", "rule", "reward-model", "openai"]
GenerationKind = Literal["auto", "transformers", "vllm", "openai"]


@dataclass(frozen=True)
class JudgeSettings:
    """Who compares answers with a baseline's, and how it is asked.

    Attributes:
        kind: "auto" is the rule of an embedded world, where the task has one.
        model: of an OpenAI-compatible end point; or folder or hub id of a reward model.
        template: how a model is asked: a name in `harness/judge/asking/templates` or a file; None:
            the task's own.
        reading: what is read of an answer: the log-probabilities of its first token, or its text.
            "auto": log-probabilities where the end point gives them.
        temperature: of the judge's own answers.
        unreadable: the share of comparisons that may have no verdict before a score is unreliable.
        retest: the share of comparisons that are judged twice, to measure the judge's noise.
        base_url: of the end point; None: `OPENAI_BASE_URL`, else OpenAI's own.
        concurrency: calls at once.
        timeout: seconds that a call may take.
        retries: of a call that failed for a reason that may pass.
        prices: file with the price of a model's tokens; see `harness.judge.asking.prices`.
        max_cost: in the prices' currency; None: no limit. Calls that would go beyond are not made.
    """

    kind: JudgeKind = "auto"
    model: str | None = None
    template: str | None = None
    reading: Literal["auto", "logprobs", "text"] = "auto"
    temperature: float = 0.0
    unreadable: float = 0.02
    retest: float = 0.0
    base_url: str | None = None
    concurrency: int = 16
    timeout: float = 60.0
    retries: int = 8
    prices: str | None = None
    max_cost: float | None = None


JUDGE_MEANS = ("concurrency", "timeout", "retries", "prices", "max_cost")
"""Settings that move no verdict: they are in no key."""

JUDGE_READS = {
    "rule": (), "reward-model": ("model",),
    "openai": ("model", "template", "reading", "temperature", "base_url"),
}  # fmt: skip
"""Settings that each kind of judge reads, beside its means and `retest`."""


@dataclass(frozen=True)
class GenerationSettings:
    """What writes completions.

    Attributes:
        backend: "auto" is vLLM where there is a GPU and vLLM is installed, else `transformers`.
        python: interpreter of the environment in which vLLM is installed; None: this one.
        memory: the share of a device's memory that vLLM may take.
        base_url: of the end point of "openai"; None: `OPENAI_BASE_URL`.
        model: name under which that end point serves the reference policy.
        concurrency: calls at once.
    """

    backend: GenerationKind = "auto"
    python: str | None = None
    memory: float = 0.9
    base_url: str | None = None
    model: str | None = None
    concurrency: int = 32


GENERATION_MEANS = ("python", "memory", "concurrency")
"""Settings that move no completion: they are in no key."""
