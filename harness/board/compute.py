"""Scores to board: every number that a board shows, as a pure function of the scores table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.board.candidates import Candidate, pick
from harness.board.completeness import checked
from harness.board.contents import Board, Measure, Pair, Row, Standing, TaskBoard, Unranked
from harness.board.differences import all_pairs, to_reference
from harness.board.strengths import standings
from harness.contracts.task import WIN_RATE, Metric
from harness.errors import DataError
from harness.scores import Header, Scores, TaskHeader
from harness.stats.difference import estimate
from harness.stats.ties import rank_intervals, tie_groups


def build(scores: Scores) -> Board:
    """The board of an experiment, one part per task.

    Raises:
        DataError: there is nothing to show, or the table does not fit its header.
    """
    header = scores.header
    strange = sorted(set(scores.frame.task) - {task.name for task in header.tasks})
    if strange:
        raise DataError(f"scores of task '{strange[0]}', which their header does not name")
    found = {task.name: checked(scores, task) for task in header.tasks}
    if not any(found.values()):
        raise DataError(f"experiment '{header.experiment}' has no runs and no scores: run it first")
    return Board(
        experiment=header.experiment,
        command=header.command,
        reference_method=header.reference_method,
        base=header.base,
        tasks=tuple(_task(header, task, found[task.name]) for task in header.tasks),
        budget=_plain(header.budget),
        versions=_plain(header.versions),
        notes=tuple(header.notes),
    )


def _task(header: Header, task: TaskHeader, found: Sequence[Candidate]) -> TaskBoard:
    metrics = _primary_first(task)
    complete = _ordered([c for c in found if not c.reasons], metrics[0])
    trained = [c for c in found if not c.base] or found
    seeds = sorted({s for c in trained for s, _ in c.seed_means(task.primary)})
    prompts = max((c.tables[task.primary].shape[1] for c in found), default=0)
    reference = pick(found, header.reference_method)
    reference = None if reference and reference.reasons else reference
    no_order = _no_order(seeds, complete, metrics[0])
    pairs = all_pairs(complete, metrics[0], claims=not no_order)
    standing, warnings = standings(complete)
    return TaskBoard(
        name=task.name,
        metrics=metrics,
        seeds=tuple(seeds),
        prompts=prompts,
        reference=reference.label if reference else "",
        no_order=no_order,
        rows=_rows(complete, metrics, reference, pairs, standing, ranked=not no_order),
        unranked=tuple(_unranked(c, task.primary) for c in found if c.reasons),
        pairs=pairs,
        mde=max((p.estimate.mde for p in pairs), default=None),
        notes=(*_notes(header, task, prompts, reference), *warnings),
    )


def _primary_first(task: TaskHeader) -> tuple[Metric, ...]:
    return tuple(sorted(task.metrics, key=lambda metric: metric.name != task.primary))


def _ordered(complete: Sequence[Candidate], metric: Metric) -> list[Candidate]:
    sign = 1 if metric.better == "lower" else -1
    return sorted(complete, key=lambda c: (sign * float(c.values(metric.name).mean()), c.label))


def _no_order(seeds: Sequence[int], complete: Sequence[Candidate], metric: Metric) -> str:
    if len(complete) == 1:
        return f"{complete[0].label} is the only complete row: there is nothing to rank."
    if len(seeds) == 1:
        return (
            "One seed: the intervals cover prompts only, so no order of methods is claimed; "
            "rows are listed by their mean."
        )
    if metric.better is None:
        return f"{metric.name} has no better direction: rows are listed by mean and not ranked."
    return ""


def _rows(
    complete: Sequence[Candidate],
    metrics: Sequence[Metric],
    reference: Candidate | None,
    pairs: Sequence[Pair],
    standing: Mapping[str, Standing],
    *,
    ranked: bool,
) -> tuple[Row, ...]:
    gaps = to_reference(complete, reference, metrics[0])
    labels = [c.label for c in complete]
    won = {(p.better, p.b if p.better == p.a else p.a) for p in pairs if p.better}
    ties = tie_groups(labels, lambda x, y: bool({(x, y), (y, x)} & won)) if ranked else {}
    ranks = rank_intervals(labels, lambda x, y: (x, y) in won) if ranked else {}
    return tuple(
        Row(
            label=c.label,
            method=c.method,
            settings=c.settings,
            base=c.base,
            measures=tuple(_measure(c, m.name) for m in metrics),
            gap=gaps.get(c.label),
            ranks=ranks.get(c.label),
            ties=ties.get(c.label, ""),
            cost=c.cost,
            standing=standing.get(c.label),
        )
        for c in complete
    )


def _measure(candidate: Candidate, metric: str) -> Measure:
    values = candidate.values(metric)
    known = estimate(values) if len(values) and values.shape[1] > 1 else None
    return Measure(metric, known, candidate.seed_means(metric))


def _unranked(candidate: Candidate, metric: str) -> Unranked:
    means = [mean for _, mean in candidate.seed_means(metric)]
    return Unranked(
        label=candidate.label,
        method=candidate.method,
        settings=candidate.settings,
        reasons=candidate.reasons,
        mean=float(np.mean(means)) if means else None,
    )


def _notes(
    header: Header, task: TaskHeader, prompts: int, reference: Candidate | None
) -> tuple[str, ...]:
    found = []
    if reference is None:
        found.append(
            f"{header.reference_method} has no complete row, so no difference to it is shown."
        )
    if prompts < task.prompts:
        found.append(
            f"{task.prompts - prompts} of {task.prompts} test prompts do not have "
            f"{task.primary} in every row and are left out."
        )
    if any(metric.name == WIN_RATE.name for metric in task.metrics):
        found.append(
            "Strength is Bradley-Terry's against the baseline, which has 50, with 95 % intervals "
            "over prompts alone; at equal style, length and markdown are held at the baseline's."
        )
    return tuple(found)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back, so that a board built from a file is the same."""
    plain: dict[str, Any] = json.loads(json.dumps(values, sort_keys=True))
    return plain
