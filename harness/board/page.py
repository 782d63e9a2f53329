"""A board as one HTML page that asks nothing of any other machine."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from harness.board.axes import axis
from harness.board.columns import decimals, details, ranking
from harness.board.contents import Board, Pair, Row, TaskBoard
from harness.board.footer import facts, methodology, settings
from harness.board.numbers import NONE, fixed, p_value, signed
from harness.board.plot import frontier
from harness.board.terminal import not_ranked, summary
from harness.board.text import file_name
from harness.board.verdict import verdict
from harness.visible import visible

_BAR = 180


def page(board: Board) -> str:
    """The page: verdicts, tables, plots and all pairs of every task."""
    folder = files("harness.board")
    script = folder.joinpath("sort.js.jinja").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True,
        finalize=_shown,
    )  # fmt: skip
    template = environment.from_string(folder.joinpath("page.jinja").read_text(encoding="utf-8"))
    return template.render(
        board=board,
        tasks=[_task(task, number) for number, task in enumerate(board.tasks, start=1)],
        methodology=methodology(board),
        budget=settings(board.budget),
        versions=settings(board.versions),
        style=Markup(folder.joinpath("page.css.jinja").read_text(encoding="utf-8")),
        script=Markup(script),
        digest=digest,
    )


def _shown(value: Any) -> Any:
    """Every printed value: hidden characters written out before Jinja escapes the rest."""
    return value if isinstance(value, Markup) else visible(str(value))


def _task(task: TaskBoard, number: int) -> Mapping[str, Any]:
    top, bottom = ranking(task), details(task)
    return {
        "anchor": f"{file_name(task.name)}-{number}",
        "name": task.name,
        "summary": summary(task),
        "verdict": verdict(task),
        "meaning": [m for m in task.metrics if m.meaning and not m.detail],
        "top": top,
        "bottom": bottom,
        "rows": task.rows,
        "bars": _bars(task),
        "unranked": [not_ranked(row) for row in task.unranked],
        "plot": Markup(frontier(task)),
        "pairs": _matrix(task),
        "facts": facts(task),
        "primary": task.primary.name,
        "reference": task.reference,
    }


def _bars(task: TaskBoard) -> list[Mapping[str, str]]:
    """Where each row's interval, mean and the reference method's mean lie, in pixels."""
    found = [row.measures[0].estimate for row in task.rows]
    ends = [v for e in found if e is not None for v in (e.low, e.high)]
    if not ends:
        return []
    scale = axis(ends, 0.0, _BAR)
    reference = next(
        (e for r, e in zip(task.rows, found, strict=True) if r.label == task.reference), None
    )
    line = "" if reference is None else f"{scale.at(reference.value):.1f}"
    return [
        {} if e is None else {
            "low": f"{scale.at(e.low):.1f}", "high": f"{scale.at(e.high):.1f}",
            "mean": f"{scale.at(e.value):.1f}", "line": line,
        }
        for e in found
    ]  # fmt: skip


def _matrix(task: TaskBoard) -> list[tuple[str, list[Mapping[str, str]]]]:
    """Row minus column for every two rows; claimed differences are marked."""
    found = {(p.a, p.b): p for p in task.pairs}
    n = decimals([p.estimate for p in task.pairs])
    return (
        [(a.label, [_cell(found, a, b, n) for b in task.rows]) for a in task.rows]
        if task.pairs
        else []
    )


def _cell(found: Mapping[tuple[str, str], Pair], a: Row, b: Row, n: int) -> Mapping[str, str]:
    pair, sign = found.get((a.label, b.label)), 1
    if pair is None:
        pair, sign = found.get((b.label, a.label)), -1
    if pair is None:
        return {"text": "", "hover": "", "kind": "self"}
    low, high = sorted((sign * pair.estimate.low, sign * pair.estimate.high))
    kind = "" if not pair.better else "better" if pair.better == a.label else "worse"
    p = NONE if pair.p_bh is None else p_value(pair.p_bh)
    return {
        "text": signed(sign * pair.estimate.value, n),
        "hover": f"{a.label} minus {b.label}: {fixed(low, n)} to {fixed(high, n)}, p {p} (BH)",
        "kind": kind,
    }
