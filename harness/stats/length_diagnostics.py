"""What speaks for or against a length-controlled win rate, in figures and sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from harness.stats.length_model import spread
from harness.stats.length_rows import Rows

FEW = 30  # prompts


@dataclass(frozen=True)
class Diagnostics:
    """What speaks for or against a length-controlled win rate.

    Attributes:
        prompts: with a preference.
        rows: with a preference; several of one prompt count together as one.
        dropped_rows: left out because they have no preference.
        mean_length_difference: model less baseline, in standard deviations of the difference.
        c: C of AlpacaEval's objective, given or chosen; None for our fixed penalty.
        warnings: sentences; none where the figure can be read as it stands.
    """

    prompts: int
    rows: int
    dropped_rows: int
    mean_length_difference: float
    c: float | None
    warnings: tuple[str, ...]


def diagnose(rows: Rows, value: float, raw: float, c: float | None) -> Diagnostics:
    """The figures and the sentences of a value and a raw win rate in percent."""
    deviation = float(spread(rows.difference, rows.share[None])[0])
    mean = float(rows.share @ rows.difference / rows.share.sum())
    shift = mean / deviation if deviation > 0.0 else 0.0
    warnings = [*_not_identified(rows, deviation, mean), *_extrapolated(rows, shift, value, raw)]
    return Diagnostics(
        prompts=len(rows.ids),
        rows=rows.prompt.size,
        dropped_rows=rows.dropped,
        mean_length_difference=shift,
        c=c,
        warnings=tuple(warnings),
    )


def _not_identified(rows: Rows, deviation: float, mean: float) -> Iterator[str]:
    if deviation == 0.0:
        yield (
            f"Every answer differs from the baseline's by {mean:+.0f} characters: nothing tells "
            "what length does, and the figure is the raw win rate."
        )
    if np.ptp(rows.preference) == 0.0:
        yield (
            f"Every preference is {rows.preference[0]:g}: nothing tells what length does, and "
            "the interval has no width."
        )
    if len(rows.ids) < FEW:
        yield f"{len(rows.ids)} prompts are too few to fit what length does (fewer than {FEW})."


def _extrapolated(rows: Rows, shift: float, value: float, raw: float) -> Iterator[str]:
    side = "longer" if shift > 0.0 else "shorter"
    if np.all(rows.difference > 0.0) or np.all(rows.difference < 0.0):
        yield (
            f"Every answer is {side} than the baseline's: what would be preferred at equal "
            "length is extrapolated."
        )
    elif abs(shift) > 1.0:
        yield (
            f"Answers are {side} than the baseline's by {abs(shift):.1f} standard deviations on "
            "average: what would be preferred at equal length is extrapolated."
        )
    room = (100.0 - raw if value > raw else raw) / 4.0
    if abs(value - raw) > max(10.0, room):
        yield (
            f"Length control moves the win rate from {raw:.1f} to {value:.1f} %: so large a "
            "correction rests on the form of the model more than on the data."
        )
