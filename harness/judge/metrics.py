"""What can be said of completions without knowing their task."""

from __future__ import annotations

from collections.abc import Sequence

from harness.contracts.task import Metric
from harness.records import Completion

KL = Metric(
    "kl", "nats", None,
    "log-ratio of policy to reference over whole answers that the policy sampled, averaged: a "
    "Monte Carlo estimate of KL(policy, reference) per answer",
)  # fmt: skip
LENGTH = Metric("length", "tokens", None, "tokens of an answer, its end included")
DISTINCT = Metric(
    "distinct_2", "share", None, "different word pairs among all word pairs of a prompt's answers"
)
FINISHED = Metric("finished", "share", None, "answers that ended by themselves")
COMMON = (KL, LENGTH, DISTINCT, FINISHED)
"""Metrics of every task; the task's own come first."""


def common(completions: Sequence[Completion]) -> dict[str, float]:
    """The metrics that need no task, for the completions of one prompt."""
    ratios = [
        c.logprob - c.reference_logprob
        for c in completions
        if c.logprob is not None and c.reference_logprob is not None
    ]
    found = {"kl": mean(ratios)} if len(ratios) == len(completions) else {}
    return found | {
        "length": mean([len(c.ids) for c in completions]),
        "distinct_2": distinct([c.text for c in completions], 2),
        "finished": mean([c.finished for c in completions]),
    }


def distinct(texts: Sequence[str], n: int) -> float:
    """Different n-grams of words over all n-grams of some texts; 1 where there is no n-gram."""
    grams = [
        tuple(words[i : i + n])
        for words in (text.split() for text in texts)
        for i in range(len(words) - n + 1)
    ]
    return len(set(grams)) / len(grams) if grams else 1.0


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return float(sum(values)) / len(values)
