"""What can be said of completions without knowing their task."""

from __future__ import annotations

from collections.abc import Sequence

from harness.contracts.task import Metric, Task
from harness.errors import DataError
from harness.judge.averages import at, mean
from harness.judge.win_rates import contest_metrics
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


def metrics(task: Task) -> tuple[Metric, ...]:
    """All metrics of a task: the one that ranks, the judge's, its own, those of every task.

    Raises:
        DataError: the task gives one of its own a name that is taken.
    """
    own = tuple(task.metrics)
    if len(task.decoded) > 1:
        own += tuple(at(m, t, detail=True) for m in task.metrics for t in task.decoded)
    judged = contest_metrics(task.decoded) if task.contest else ()
    if taken := {m.name for m in own} & {m.name for m in (*judged, *COMMON)}:
        raise DataError(f"'{min(taken)}' is a metric of every task already: name it otherwise")
    return tuple(sorted((*judged, *own, *COMMON), key=lambda m: m.name != task.primary.name))


def common(completions: Sequence[Completion], temperature: float = 1.0) -> dict[str, float]:
    """The metrics that need no task, for the completions of one prompt.

    Of the answers at `temperature`; the KL estimate of those at 1, where a policy samples from
    itself, and only where all of them have their log-probs.
    """
    mine = [c for c in completions if c.temperature == temperature]
    plain = [c for c in completions if c.temperature == 1.0]
    ratios = [
        c.logprob - c.reference_logprob
        for c in plain
        if c.logprob is not None and c.reference_logprob is not None
    ]
    found = {"kl": mean(ratios)} if ratios and len(ratios) == len(plain) else {}
    return found | {
        "length": mean([len(c.ids) for c in mine]),
        "distinct_2": distinct([c.text for c in mine], 2),
        "finished": mean([c.finished for c in mine]),
    }


def distinct(texts: Sequence[str], n: int) -> float:
    """Different n-grams of words over all n-grams of some texts; 1 where there is no n-gram."""
    grams = [
        tuple(words[i : i + n])
        for words in (text.split() for text in texts)
        for i in range(len(words) - n + 1)
    ]
    return len(set(grams)) / len(grams) if grams else 1.0
