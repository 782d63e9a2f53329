"""Scores of stored completions: what the task says of them, and what holds for every task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.errors import DataError
from harness.judge.metrics import COMMON, common, mean
from harness.records import Completion, read_jsonl
from harness.registry import load_task
from harness.store.stage import Work


def score(work: Work) -> Mapping[str, Any]:
    """Stage: one value per prompt and metric, averaged over the prompt's completions.

    Raises:
        DataError: the task scored another number of completions, or not all of its metrics.
    """
    s = work.settings
    task = load_task(s["task"]).build(**s["task_settings"])
    completions = read_jsonl(work.inputs["completions"] / "completions.jsonl", Completion)
    own = task.score(completions)
    wanted = {metric.name for metric in task.metrics}
    if shared := wanted & {metric.name for metric in COMMON}:
        raise DataError(f"task '{s['task']}': '{min(shared)}' is a metric of every task already")
    if len(own) != len(completions) or any(set(row) != wanted for row in own):
        raise DataError(f"task '{s['task']}' must score every completion on {sorted(wanted)}")
    rows = list(_rows(completions, own))
    table = pa.Table.from_pylist(
        [{"prompt_id": p, "metric": m, "value": v} for p, m, v in rows],
        schema=pa.schema(
            [("prompt_id", pa.string()), ("metric", pa.string()), ("value", pa.float64())]
        ),
    )
    pq.write_table(table, work.out / "scores.parquet")
    means: dict[str, list[float]] = defaultdict(list)
    for _, metric, value in rows:
        means[metric].append(value)
    return {"means": {metric: sum(v) / len(v) for metric, v in means.items()}}


def _rows(
    completions: Sequence[Completion], own: Sequence[Mapping[str, float]]
) -> list[tuple[str, str, float]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for row, completion in enumerate(completions):
        groups[completion.prompt_id].append(row)
    found = []
    for prompt_id, rows in groups.items():
        mine = [completions[row] for row in rows]
        for metric in own[rows[0]]:
            found.append((prompt_id, metric, mean([own[row][metric] for row in rows])))
        found += [(prompt_id, metric, value) for metric, value in common(mine).items()]
    return found
