"""From finished stages to the scores table: what was scored, what was not, and why."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from harness.config import Experiment
from harness.files import replacing
from harness.judge.metrics import metrics
from harness.pipeline.layout import Cell
from harness.pipeline.names import BASE, Board
from harness.pipeline.plan import Plan
from harness.scores import COLUMNS, Header, Run, Scores, TaskHeader
from harness.store.stage import Stage, package_versions
from harness.store.store import Store

PARSES = 0.9
"""Share of well-formed samples below which a world's reference policy has not learnt its world."""


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
    frame = pq.read_table(store.folder(cell.score) / "scores.parquet").to_pandas()
    units = {metric.name: metric.unit for metric in metrics(cell.board.task)}
    return frame.assign(  # type: ignore[no-any-return]
        task=run.task, method=run.method, settings=run.settings, seed=run.seed,
        unit=frame["metric"].map(units),
    )[list(COLUMNS)]  # fmt: skip


def _header(
    plan: Plan, store: Store, runs: tuple[Run, ...], frame: pd.DataFrame, command: str
) -> Header:
    x = plan.experiment
    budget = {**asdict(x.budget), "preset": x.preset, "seeds": x.seeds, "data_seed": x.data_seed}
    return Header(
        experiment=name(plan), command=command, reference_method=x.reference_method, base=BASE,
        tasks=tuple(_task(board, frame, x) for board in plan.boards),
        runs=runs, budget=budget, versions={k: v or "-" for k, v in package_versions().items()},
        notes=tuple(_notes(plan, store)),
    )  # fmt: skip


def _task(board: Board, frame: pd.DataFrame, x: Experiment) -> TaskHeader:
    found = set(frame[frame["task"] == board.name]["metric"]) if len(frame) else set()
    known = metrics(board.task)
    listed = tuple(metric for metric in known if not found or metric.name in found)
    spare = x.judge.unreadable if board.task.contest else 0.0
    return TaskHeader(board.name, board.task.primary.name, listed, x.budget.test_prompts, spare)


def name(plan: Plan) -> str:
    """The experiment's name: given, or its tasks and a hash of all that it asks for."""
    if plan.experiment.name:
        return plan.experiment.name
    tasks = sorted({board.plugin.name for board in plan.boards})
    keys = json.dumps(sorted(cell.score.key for cell in plan.cells))
    return f"{'-'.join(tasks)}-{hashlib.sha256(keys.encode()).hexdigest()[:8]}"


def _notes(plan: Plan, store: Store) -> list[str]:
    """Sentences that the reader of a board must see: what the data were, and what is short."""
    notes: list[str] = []
    for board in plan.boards:
        mine: list[str] = []
        own = [c.train for c in plan.cells if c.board is board and c.train]
        inputs = {k: s for train in own for k, s in train.inputs.items()}
        wanted = partial(_data_notes, wanted=plan.experiment.budget.pairs)
        tokens = inputs.get("tokens")
        mine += _note(store, tokens and tokens.inputs["pairs"], _sample_notes)
        mine += _note(store, tokens, wanted)
        margins = inputs.get("margins")
        mine += _note(store, margins and margins.inputs["reward_model"], _reward_notes)
        mine += _note(store, inputs.get("engine"), _engine_notes)
        mine += _alone(own, store)
        mine += _sharing(own, store)
        mine += _still([c for c in plan.cells if c.board is board], store)
        choices = {t.inputs["choice"].key: t.inputs["choice"] for t in own if "choice" in t.inputs}
        for choice in choices.values():
            mine += [f"{choice.label}: {n}" for n in _note(store, choice, _choice_notes)]
        if 1.0 not in board.task.decoded:
            mine.append(
                f"no KL: answers were drawn at temperature {board.task.temperature}, and the "
                "estimate needs plain samples"
            )
        notes += [f"{board.name}: {note}" for note in mine]
    return notes


def _note(
    store: Store, stage: Stage | None, words: Callable[[Mapping[str, Any]], list[str]]
) -> list[str]:
    """What the facts of a finished stage give to say; nothing where there is no such stage."""
    manifest = store.manifest(stage) if stage else None
    return words(manifest.facts) if manifest and manifest.status == "done" else []


def _sharing(trained: Sequence[Stage], store: Store) -> list[str]:
    """What every method was billed for alone, and was made once for all of them."""
    found = [(stage, store.manifest(stage)) for stage in trained]
    bills = [(stage, m.facts["bill"]) for stage, m in found if m and m.status == "done"]
    billed = sum(bill["total"] for _, bill in bills)
    parts = {"reference": "reference", "reward": "margins", "mismatched": "mismatched"}
    shared = [
        (stage.inputs[made].key, bill[part])
        for stage, bill in bills for part, made in parts.items() if bill[part]
    ]  # fmt: skip
    saved = sum(cost for _, cost in shared) - sum(dict(shared).values())
    if not saved:
        return []
    return [
        f"sharing saved {saved:.1e} of {billed:.1e} FLOPs billed: reference log-probs, reward "
        "model and margins were made once"
    ]


def _still(cells: Sequence[Cell], store: Store) -> list[str]:
    """Rows that are named after a moving reference and had one that stood still."""
    still = {}
    for cell in cells:
        manifest = store.manifest(cell.train) if cell.train and cell.row else None
        if manifest and manifest.status == "done" and manifest.facts["reference_moves"] == 0:
            assert cell.row is not None
            still[f"{cell.row.method.name} {cell.row.label}".strip()] = manifest.facts["steps"]
    return [
        f"{row}: its reference never moved in {steps} steps, so that it is the same loss without "
        "the move" for row, steps in still.items()
    ]  # fmt: skip


def _engine_notes(facts: Mapping[str, Any]) -> list[str]:
    """Where the engine is not the one that was asked for: why, and what that costs."""
    choice = facts["choice"]
    if not choice["why"]:
        return []
    more = facts["padded_tokens"] if choice["trunk"] == "padded" else 1.0
    cost = f"; prompts are computed twice, {more:.2f} times the tokens" if more > 1 else ""
    return [facts["engine"] + cost]


def _alone(trained: Sequence[Stage], store: Store) -> list[str]:
    """Pairs that are longer than a micro-batch may be."""
    found = (store.manifest(stage) for stage in trained)
    told = (m.facts["alone"] for m in found if m and m.status == "done")
    return list(dict.fromkeys(sentence for sentence in told if sentence))


def _sample_notes(facts: Mapping[str, Any]) -> list[str]:
    share = facts.get("samples_that_parse", 1.0)
    if share >= PARSES:
        return []
    return [
        f"only {share:.0%} of the reference policy's samples are well-formed: with so short a warm "
        "start the figures show that the way works, and nothing else"
    ]


def _reward_notes(facts: Mapping[str, Any]) -> list[str]:
    held_out = facts["held_out"]
    return [
        f"reward model: {held_out['accuracy']:.1%} of {held_out['pairs']} held-out labels, "
        f"calibration error {held_out['calibration_error']:.3f}"
    ]


def _choice_notes(facts: Mapping[str, Any]) -> list[str]:
    chosen = {**facts["settings"], "learning_rate": facts["learning_rate"]}
    words = " ".join(f"{key}={value}" for key, value in chosen.items())
    edge = f"; at the edge of what was tried: {', '.join(facts['edges'])}" if facts["edges"] else ""
    lost = f", {facts['diverged']} diverged" if facts["diverged"] else ""
    return [f"{words}, trial {facts['trial']} of {facts['of']}{lost}{edge}"]


def _data_notes(facts: Mapping[str, Any], wanted: int) -> list[str]:
    counts = facts["train"]
    lost = {k: n for k, n in counts.items() if k not in ("kept", "used") and n}
    words = ", ".join(f"{n} {k}" for k, n in lost.items())
    notes = [f"of the training pairs made: {words}"] if words else []
    if counts["used"] < wanted:
        notes.append(f"{counts['used']} pairs instead of {wanted} were to be had")
    return notes


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
