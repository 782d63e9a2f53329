"""From finished stages to the scores table: what was scored, what was not, and why."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from harness.contracts.task import Metric
from harness.files import replacing
from harness.judge.lm_eval import metrics as lm_eval_metrics
from harness.judge.metrics import metrics
from harness.notes import notes
from harness.pipeline.layout import Cell
from harness.pipeline.names import BASE, Board
from harness.pipeline.plan import Plan
from harness.scores import COLUMNS, Header, Run, Scores, TaskHeader
from harness.store.stage import Stage, package_versions
from harness.store.store import Store


def gather(plan: Plan, store: Store, reasons: Mapping[str, str], command: str) -> Scores:
    """The scores of every cell that has some, and a header that accounts for the others.

    Args:
        plan: the experiment's stages.
        store: where they were made.
        reasons: why stages have no result, by key.
        command: the command that gives the same table again.
    """
    runs = [_run(cell, store, reasons) for cell in plan.cells]
    frames = [
        _frame(cell, run, store) for cell, run in zip(plan.cells, runs, strict=True)
        if run.status in ("done", "unreliable")
    ]  # fmt: skip
    frame = pd.concat(frames) if frames else pd.DataFrame(columns=list(COLUMNS))
    frame = frame.sort_values(list(COLUMNS[:6]), kind="stable").reset_index(drop=True)
    return Scores(_header(plan, store, tuple(runs), frame, command), frame)


def _run(cell: Cell, store: Store, reasons: Mapping[str, str]) -> Run:
    name = cell.row.method.name if cell.row else BASE
    settings = cell.row.label if cell.row else ""
    status, reason = _status(cell, store, reasons)
    cost: dict[str, int] = {}
    trained = store.manifest(cell.train) if cell.train else None
    if trained and trained.status == "done":
        facts = trained.facts
        cost = {
            "pairs": facts["pairs"], "steps": facts["steps"], "tokens": facts["bill"]["tokens"],
            "flops": facts["bill"]["total"],
        }  # fmt: skip
    return Run(cell.board.name, name, settings, cell.seed, status, reason, **cost)  # type: ignore[arg-type]


def _status(cell: Cell, store: Store, reasons: Mapping[str, str]) -> tuple[str, str]:
    """How a cell ended: by its own manifests first, then by what this run saw."""
    scored = store.manifest(cell.score)
    if scored and scored.status == "done":
        reason = scored.facts.get("unreliable", "")
        return ("unreliable" if reason else "done"), reason
    trained = store.manifest(cell.train) if cell.train else None
    if trained and trained.status == "diverged":
        return "diverged", trained.reason
    if trained and trained.status == "void":
        return "failed", f"void: {trained.reason}"
    return "failed", reasons.get(cell.score.key, "it was not run")


def _frame(cell: Cell, run: Run, store: Store) -> pd.DataFrame:
    known, tables = [*metrics(cell.board.task), *_more(cell, store)], [store.folder(cell.score)]
    if cell.also and store.is_done(cell.also):
        tables.append(store.folder(cell.also))
    frame = pd.concat([pq.read_table(t / "scores.parquet").to_pandas() for t in tables])
    units = {metric.name: metric.unit for metric in known}
    return frame.assign(  # type: ignore[no-any-return]
        task=run.task, method=run.method, settings=run.settings, seed=run.seed,
        unit=frame["metric"].map(units),
    )[list(COLUMNS)]  # fmt: skip


def _more(cell: Cell, store: Store) -> tuple[Metric, ...]:
    """The metrics of lm-evaluation-harness, where it was asked and has answered."""
    manifest = store.manifest(cell.also) if cell.also else None
    return lm_eval_metrics(manifest.facts) if manifest and manifest.status == "done" else ()


def _header(
    plan: Plan, store: Store, runs: tuple[Run, ...], frame: pd.DataFrame, command: str
) -> Header:
    x = plan.experiment
    budget = {**asdict(x.budget), "preset": x.preset, "seeds": x.seeds, "data_seed": x.data_seed}
    return Header(
        experiment=name(plan), command=command, reference_method=x.reference_method, base=BASE,
        tasks=tuple(_task(board, frame, plan, store) for board in plan.boards),
        runs=runs, budget=budget, versions={k: v or "-" for k, v in package_versions().items()},
        notes=tuple(notes(plan, store)),
    )  # fmt: skip


def _task(board: Board, frame: pd.DataFrame, plan: Plan, store: Store) -> TaskHeader:
    x = plan.experiment
    found = set(frame[frame["task"] == board.name]["metric"]) if len(frame) else set()
    more = {m.name: m for c in plan.cells if c.board is board for m in _more(c, store)}
    known = (*metrics(board.task), *more.values())
    listed = tuple(metric for metric in known if not found or metric.name in found)
    spare = x.judge.unreadable if board.task.contest else 0.0
    return TaskHeader(board.name, board.task.primary.name, listed, x.budget.test_prompts, spare)


def name(plan: Plan) -> str:
    """The experiment's name: given, or its tasks and a hash of all that it asks for."""
    if plan.experiment.name:
        return plan.experiment.name
    tasks = sorted({board.plugin.name for board in plan.boards})
    keys = json.dumps(sorted(stage.key for stage in plan.ends))
    return f"{'-'.join(tasks)}-{hashlib.sha256(keys.encode()).hexdigest()[:8]}"


COSTS = ("stage", "label", "status", "seconds", "peak_memory_mib", "device", "key")


def write_costs(path: Path, stages: Sequence[Stage], store: Store) -> None:
    """What was measured while it was made, as CSV: never the same twice, so not of the scores."""
    rows = []
    for stage in stages:
        if manifest := store.manifest(stage):
            memory = (manifest.peak_memory or 0) >> 20
            rows.append(
                (stage.verb, stage.label, manifest.status, round(manifest.seconds, 3), memory,
                 manifest.device, stage.key)
            )  # fmt: skip
    with replacing(path) as aside:
        pd.DataFrame(rows, columns=list(COSTS)).to_csv(aside, index=False)
