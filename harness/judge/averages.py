"""From values of completions to values of prompts: every temperature counts alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from harness.contracts.task import Metric
from harness.records import Completion

Row: TypeAlias = tuple[str, str, float]
"""Prompt, metric and value."""

Values: TypeAlias = Mapping[str, float]
"""By metric, of one completion; one that has no value is not among them."""


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean."""
    return float(sum(values)) / len(values)


def at(metric: Metric, temperature: float, *, detail: bool) -> Metric:
    """A metric of the answers at one temperature."""
    return replace(
        metric, name=_at(metric.name, temperature), detail=detail,
        meaning=f"{metric.meaning}; temperature {temperature:g} alone",
    )  # fmt: skip


def averages(completions: Sequence[Completion], values: Sequence[Values]) -> Iterator[Row]:
    """Mean of every metric over a prompt's completions, the temperatures weighing alike."""
    for (prompt_id, metric), found in _grouped(completions, values).items():
        yield prompt_id, metric, mean([mean(some) for some in found.values()])


def by_temperature(completions: Sequence[Completion], values: Sequence[Values]) -> Iterator[Row]:
    """The same for each temperature alone; nothing where there is but one."""
    if len({completion.temperature for completion in completions}) < 2:
        return
    for (prompt_id, metric), found in _grouped(completions, values).items():
        for temperature, some in found.items():
            yield prompt_id, _at(metric, temperature), mean(some)


def _grouped(
    completions: Sequence[Completion], values: Sequence[Values]
) -> dict[tuple[str, str], dict[float, list[float]]]:
    """Values by prompt and metric, then by temperature."""
    found: dict[tuple[str, str], dict[float, list[float]]] = defaultdict(dict)
    for completion, mine in zip(completions, values, strict=True):
        for metric, value in mine.items():
            group = found[completion.prompt_id, metric]
            group.setdefault(completion.temperature, []).append(value)
    return found


def _at(name: str, temperature: float) -> str:
    return f"{name}@{temperature:g}"
