"""Scores of stored completions: the task's, the judge's, and what holds for every task."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from harness.contracts.task import Task
from harness.errors import DataError
from harness.judge.averages import Row, averages, by_temperature
from harness.judge.metrics import common, metrics
from harness.judge.win_rates import judged
from harness.records import Completion, Verdict, read_jsonl
from harness.registry import load_task
from harness.stats.length_control import LengthControlled
from harness.store.stage import Work

RELIABILITY = "reliability.json"
"""What is to be known of the judge's answers before the scores are used."""


def score(work: Work) -> Mapping[str, Any]:
    """Stage: one value per prompt and metric, averaged over the prompt's completions.

    Raises:
        DataError: the task scored another number of completions, or not all of its metrics.
    """
    s = work.settings
    task = load_task(s["task"]).build(**s["task_settings"])
    completions = read_jsonl(work.inputs["completions"] / "completions.jsonl", Completion)
    own = _own(s["task"], task, completions)
    rows = [*averages(completions, own), *by_temperature(completions, own)]
    facts: dict[str, Any] = {}
    if task.contest is not None:
        verdicts = read_jsonl(work.inputs["verdicts"] / "verdicts.jsonl", Verdict)
        found = judged(completions, verdicts)
        rows += found.rows
        facts = {**_reliability(verdicts, s["unreadable"]), **_length_facts(found.length)}
    (work.out / RELIABILITY).write_text(json.dumps(facts))
    rows += _common(task, completions)
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
    return {"means": {metric: sum(v) / len(v) for metric, v in means.items()}, **facts}


def _own(name: str, task: Task, completions: Sequence[Completion]) -> list[dict[str, float]]:
    """What the task says of each completion."""
    own = task.score(completions)
    metrics(task)  # refuses names that are taken
    wanted = {metric.name for metric in task.metrics}
    if len(own) != len(completions) or any(set(row) != wanted for row in own):
        raise DataError(f"task '{name}' must score every completion on {sorted(wanted)}")
    return own


def _common(task: Task, completions: Sequence[Completion]) -> Iterator[Row]:
    """What holds for every task, of the answers at the temperature that pairs are made at."""
    here = task.temperature if task.temperature in task.decoded else task.decoded[-1]
    groups: dict[str, list[Completion]] = defaultdict(list)
    for completion in completions:
        groups[completion.prompt_id].append(completion)
    for prompt_id, mine in groups.items():
        found = common(mine, here)
        yield from ((prompt_id, metric, value) for metric, value in found.items())


def _length_facts(length: LengthControlled | None) -> dict[str, Any]:
    if length is None:
        return {}
    warnings = list(length.diagnostics.warnings)
    return {"length_control": {"coefficients": dict(length.coefficients), "warnings": warnings}}


def _reliability(verdicts: Sequence[Verdict], allowed: float) -> dict[str, Any]:
    """How many comparisons have no verdict, and why that is too many, if it is."""
    lost = sum(verdict.preference is None for verdict in verdicts)
    facts: dict[str, Any] = {"unreadable": lost, "of": len(verdicts)}
    if lost > allowed * len(verdicts):
        facts["unreliable"] = (
            f"{lost} of {len(verdicts)} comparisons have no verdict that could be read, more than "
            f"judge.unreadable = {allowed:g} allows"
        )
    return facts
