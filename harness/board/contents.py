"""What a board holds: frozen records from which every file and every view is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.contracts.task import Metric
from harness.stats.difference import Estimate
from harness.stats.strength import Strength

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Cost:
    """What one run of a row cost: means over its seeds, in units that no machine changes."""

    pairs: float
    steps: float
    tokens: float
    flops: float


@dataclass(frozen=True)
class Measure:
    """One metric of one row.

    Attributes:
        estimate: None where fewer than two prompts have a value in every seed.
        seeds: (seed, mean over the prompts) of each run.
    """

    metric: str
    estimate: Estimate | None
    seeds: tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class Gap:
    """A row's distance to the reference method on the primary metric, row minus reference.

    Attributes:
        p_holm: adjusted within "each row against the reference method" of the task.
        remedy: what it would take to see a difference of the size observed, in words.
    """

    estimate: Estimate
    p_holm: float | None
    remedy: str


@dataclass(frozen=True)
class Standing:
    """How strong a row is against the baseline, whose own strength is 50.

    Attributes:
        plain: from the preferences alone.
        styled: of answers that look like the baseline's: as long, with as much markdown.
    """

    plain: Strength
    styled: Strength


@dataclass(frozen=True)
class Row:
    """A complete row: every seed and every prompt that the board has.

    Attributes:
        base: whether it is the untrained reference policy.
        measures: the primary metric first.
        gap: None for the reference method itself, and where that is not complete.
        ranks: first and last rank that the data allow; None where no order is claimed.
        ties: letters that the row shares with those it cannot be told apart from.
        standing: against the baseline, where answers were compared with one.
    """

    label: str
    method: str
    settings: str
    base: bool
    measures: tuple[Measure, ...]
    gap: Gap | None
    ranks: tuple[int, int] | None
    ties: str
    cost: Cost | None
    standing: Standing | None = None


@dataclass(frozen=True)
class Unranked:
    """A row that is shown and never ranked, and why.

    Attributes:
        mean: primary metric over what there is, without an interval; None where nothing is.
    """

    label: str
    method: str
    settings: str
    reasons: tuple[str, ...]
    mean: float | None


@dataclass(frozen=True)
class Pair:
    """One difference of the primary metric, `a` minus `b`.

    Attributes:
        p_bh: adjusted over all pairs of the task.
        better: the label of the better row where the board claims one, else empty.
    """

    a: str
    b: str
    estimate: Estimate
    p_bh: float | None
    better: str


@dataclass(frozen=True)
class TaskBoard:
    """The board of one task.

    Attributes:
        metrics: the primary metric first.
        reference: label of the row that the others are tested against; empty where it is missing.
        no_order: why no order of rows is claimed; empty where one is.
        rows: complete rows, best mean first.
        mde: largest minimum detectable effect of all pairs, at 80 % power, before correction.
        notes: sentences about this task that the reader must see.
    """

    name: str
    metrics: tuple[Metric, ...]
    seeds: tuple[int, ...]
    prompts: int
    reference: str
    no_order: str
    rows: tuple[Row, ...]
    unranked: tuple[Unranked, ...]
    pairs: tuple[Pair, ...]
    mde: float | None
    notes: tuple[str, ...]

    @property
    def primary(self) -> Metric:
        """The metric that the board ranks by."""
        return self.metrics[0]


@dataclass(frozen=True)
class Board:
    """All tasks of an experiment and what the reader must know about them."""

    experiment: str
    command: str
    reference_method: str
    base: str
    tasks: tuple[TaskBoard, ...]
    budget: Mapping[str, Any]
    versions: Mapping[str, str]
    notes: tuple[str, ...]
    schema_version: int = SCHEMA_VERSION


def tested(estimate: Estimate) -> float | None:
    """The p of a difference where it is about methods; None where it covers prompts only."""
    return estimate.p if estimate.scope == "seeds and prompts" else None
