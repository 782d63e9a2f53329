"""A board as data for other programs: one JSON tree and two flat tables."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from harness.board.contents import Board, Pair, Row, Standing, TaskBoard, Unranked, tested
from harness.board.numbers import stored
from harness.board.verdict import verdict
from harness.stats.difference import Estimate


def as_json(board: Board) -> str:
    """All that a board holds, as one JSON object with a schema version."""
    tree = {
        "schema_version": board.schema_version,
        "experiment": board.experiment,
        "command": board.command,
        "reference_method": board.reference_method,
        "base": board.base,
        "tasks": [_json_task(task) for task in board.tasks],
        "notes": list(board.notes),
        "budget": board.budget,
        "versions": board.versions,
    }
    return json.dumps(tree, indent=1, allow_nan=False) + "\n"


def leaderboard(board: Board) -> Iterator[dict[str, Any]]:
    """One flat row per task and method, those that are not ranked last."""
    for task in board.tasks:
        for row in task.rows:
            yield {**_named(task, row), **_place(row), **_primary(row), **_against(row),
                   **_others(row), **_cost(row)}  # fmt: skip
        for out in task.unranked:
            yield {**_named(task, out), "mean": stored(out.mean), "not_ranked": _reasons(out)}


def pairwise(board: Board) -> Iterator[dict[str, Any]]:
    """One flat row per task and pair of methods."""
    for task in board.tasks:
        for pair in task.pairs:
            yield {"task": task.name, "metric": task.primary.name, **_json_pair(pair)}


def as_csv(rows: Iterable[Mapping[str, Any]]) -> str:
    """Flat rows as CSV, with every column that any of them has."""
    found = list(rows)
    columns = list(dict.fromkeys(key for row in found for key in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(found)
    return file.getvalue()


def _json_task(task: TaskBoard) -> dict[str, Any]:
    return {
        "name": task.name,
        "primary": task.primary.name,
        "metrics": [vars(metric) for metric in task.metrics],
        "seeds": list(task.seeds),
        "prompts": task.prompts,
        "reference": task.reference or None,
        "verdict": list(verdict(task)),
        "no_order": task.no_order or None,
        "minimum_detectable_effect": stored(task.mde),
        "rows": [_json_row(row) for row in task.rows],
        "unranked": [_json_unranked(row) for row in task.unranked],
        "pairs": [_json_pair(pair) for pair in task.pairs],
        "notes": list(task.notes),
    }


def _json_row(row: Row) -> dict[str, Any]:
    gap = row.gap
    return {
        "label": row.label,
        "method": row.method,
        "settings": row.settings,
        "base": row.base,
        "ranks": list(row.ranks) if row.ranks else None,
        "ties": row.ties or None,
        "metrics": {
            m.metric: {
                **(_estimate(m.estimate) if m.estimate else {}),
                "by_seed": {str(seed): stored(mean) for seed, mean in m.seeds},
            }
            for m in row.measures
        },
        "difference": {**_estimate(gap.estimate), "p_holm": stored(gap.p_holm)} if gap else None,
        "cost": _cost(row) or None,
        "strength": _standing(row.standing),
    }


def _standing(found: Standing | None) -> dict[str, Any] | None:
    if found is None:
        return None
    both = {"plain": found.plain, "style_controlled": found.styled}
    return {
        name: {
            "value": stored(each.value), "low": stored(each.interval[0]),
            "high": stored(each.interval[1]), "standard_error": stored(each.standard_error),
        }
        for name, each in both.items()
    }  # fmt: skip


def _json_pair(pair: Pair) -> dict[str, Any]:
    return {
        "a": pair.a,
        "b": pair.b,
        **_estimate(pair.estimate),
        "p_bh": stored(pair.p_bh),
        "better": pair.better or None,
    }


def _json_unranked(row: Unranked) -> dict[str, Any]:
    return {**vars(row), "reasons": list(row.reasons), "mean": stored(row.mean)}


def _estimate(estimate: Estimate) -> dict[str, Any]:
    numbers = ("value", "low", "high", "standard_error", "df", "seed_sd", "mde")
    return {
        **{name: stored(getattr(estimate, name)) for name in numbers},
        "p": stored(tested(estimate)),
        "seeds": estimate.seeds,
        "prompts": estimate.prompts,
        "scope": estimate.scope,
    }


def _named(task: TaskBoard, row: Row | Unranked) -> dict[str, Any]:
    return {"task": task.name, "metric": task.primary.name, "label": row.label,
            "method": row.method, "settings": row.settings}  # fmt: skip


def _place(row: Row) -> dict[str, Any]:
    first, last = row.ranks or (None, None)
    return {"rank_first": first, "rank_last": last, "ties": row.ties}


def _primary(row: Row) -> dict[str, Any]:
    found = row.measures[0].estimate
    known = {} if found is None else _estimate(found)
    known["mean"] = known.pop("value", None)
    order = ("mean", "low", "high", "standard_error", "df", "seeds", "prompts", "seed_sd", "scope")
    return {name: known.get(name) for name in order}


def _against(row: Row) -> dict[str, Any]:
    known = {} if row.gap is None else _estimate(row.gap.estimate)
    return {
        "difference": known.get("value"),
        "difference_low": known.get("low"),
        "difference_high": known.get("high"),
        "p": known.get("p"),
        "p_holm": stored(row.gap.p_holm) if row.gap else None,
    }


def _others(row: Row) -> dict[str, Any]:
    return {
        f"{m.metric}{end}": stored(getattr(m.estimate, name))
        for m in row.measures[1:]
        if m.estimate
        for end, name in (("", "value"), ("_low", "low"), ("_high", "high"))
    }


def _cost(row: Row) -> dict[str, Any]:
    return {k: stored(v) for k, v in vars(row.cost).items()} if row.cost else {}


def _reasons(row: Unranked) -> str:
    return "; ".join(row.reasons)
