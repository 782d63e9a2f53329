"""From rounds to figures: medians with their spread, ratios of equal work, a table in markdown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.contest import Result
from harness.errors import GateError

LIMITS = {"fp32": 1e-4, "bf16": 0.01}
"""The most that two contestants' losses of the same step may differ, nats."""


@dataclass(frozen=True)
class Spread:
    """A median, and the least and the most of what it is of."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Of at least one value."""
        return cls(median(values), min(values), max(values))

    def __format__(self, form: str) -> str:
        return f"{self.median:{form}} ({self.low:{form}}..{self.high:{form}})"


def pairs_per_second(result: Result, per_step: int, *, cpu: bool = False) -> Spread:
    """Of wall time, or of processor time where `cpu`."""
    rates = [
        per_step * len(each.losses) / (each.cpu if cpu else each.wall) for each in result.rounds
    ]
    return Spread.of(rates)


def per_second(result: Result, amounts: Sequence[float], per_step: int) -> list[float]:
    """Of each round, what its pairs amount to by second of wall time.

    Args:
        result: of a contestant.
        amounts: of every pair of the workload, in the order of training.
        per_step: pairs of a step.
    """
    done, found = len(result.warm.losses) * per_step, []
    for each in result.rounds:
        more = len(each.losses) * per_step
        found.append(sum(amounts[done : done + more]) / each.wall)
        done += more
    return found


def speed_ratio(one: Result, other: Result, *, cpu: bool = False) -> Spread:
    """How many times as fast `one` is as `other`, by rounds: each is the same work for both."""
    pairs = zip(one.rounds, other.rounds, strict=True)
    return Spread.of([
        theirs.cpu / mine.cpu if cpu else theirs.wall / mine.wall for mine, theirs in pairs
    ])  # fmt: skip


def peak(result: Result) -> int:
    """Bytes held at most."""
    return max(each.peak for each in (result.warm, *result.rounds))


def fastest(results: Sequence[Result]) -> Result:
    """The one with the least wall time of a round in the median."""
    return min(results, key=lambda r: median(each.wall for each in r.rounds))


def check_losses(results: Sequence[Result], precision: str) -> float:
    """The largest difference between two contestants' losses of a step, nats.

    Raises:
        GateError: it is too large: they do not train the same model on the same pairs.
    """
    worst = 0.0
    first = results[0]
    for other in results[1:]:
        steps = enumerate(zip(first.losses, other.losses, strict=True))
        for step, (a, b) in steps:
            if not abs(a - b) <= LIMITS[precision]:
                raise GateError(
                    f"step {step}: the loss of {first.name} is {a:.6f} and that of {other.name} "
                    f"{b:.6f}; more than {LIMITS[precision]:g} apart in {precision}, so that these "
                    "are not the same trainings and no speed is compared"
                )
            worst = max(worst, abs(a - b))
    return worst


def table(results: Sequence[Result], per_step: int, base: Result) -> str:
    """A row for each contestant; ratios are to `base`."""
    heads = (
        "", "pairs/s", "pairs per CPU second", "ready after", "first steps", "peak memory",
        "times as fast", "in CPU time", "of its memory",
    )  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for r in results:
        warm = r.warm.wall / len(r.warm.losses)
        lines.append(
            f"| {r.name} | {pairs_per_second(r, per_step):.2f} "
            f"| {pairs_per_second(r, per_step, cpu=True):.2f} | {r.up:.0f} s "
            f"| {warm:.1f} s each | {peak(r) / 1e9:.2f} GB "
            f"| {speed_ratio(r, base):.2f} | {speed_ratio(r, base, cpu=True):.2f} "
            f"| {peak(r) / peak(base):.2f} |"
        )
    return "\n".join(lines)
