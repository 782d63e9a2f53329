"""A board as plain text for the command line."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence

from harness.board.columns import Column, details, folded, ranking
from harness.board.contents import Board, TaskBoard, Unranked
from harness.board.footer import closing, facts
from harness.board.numbers import fixed
from harness.board.text import shortened
from harness.board.verdict import verdict
from harness.visible import visible

WIDTH = 100
_INDENT = 2
_GAP = "  "
_LONGEST = 40
_FIXED = "\u00a0"
_TOGETHER = re.compile(r"p [=<] \d|\d %")


def render(board: Board, *, width: int = WIDTH) -> str:
    """All tasks of a board in at most `width` columns, without colours or control characters."""
    parts = [line for task in board.tasks for line in (*_task(task, width), "")]
    foot = [line for text in closing(board) for line in wrapped(text, width)]
    return "\n".join([*parts, *foot]) + "\n"


def aligned(columns: Sequence[Column], width: int) -> list[str]:
    """Columns side by side; those that do not fit stand below, beside the first text column."""
    lines: list[str] = []
    for block in _blocks(columns, width - _INDENT):
        lines += [""] * bool(lines) + _lines(block, width)
    return lines


def summary(task: TaskBoard) -> str:
    """What a task's board ranks by, in which direction, and how much it rests on."""
    metric = task.primary
    better = f"{metric.better} is better" if metric.better else "no better direction"
    unit = f" ({metric.unit})" if metric.unit and metric.unit != metric.name else ""
    runs = "1 seed" if len(task.seeds) == 1 else f"{len(task.seeds)} seeds"
    return f"{metric.name}{unit}, {better}; {runs}, {task.prompts} prompts"


def not_ranked(row: Unranked) -> str:
    """Why a row is not ranked, and its mean as far as it goes."""
    mean = f" (mean of its scores: {fixed(row.mean, 3)})" if row.mean is not None else ""
    return f"{row.label}: {'; '.join(row.reasons)}{mean}"


def _task(task: TaskBoard, width: int) -> Iterator[str]:
    title = wrapped(f"{task.name}: {summary(task)}", width, "")
    yield from title
    yield "=" * max(map(len, title))
    for sentence in verdict(task):
        yield from wrapped(sentence, width, "* ")
    same = ""
    if task.rows:
        yield ""
        yield from aligned(ranking(task), width)
        yield ""
        varying, same = folded(details(task))
        yield from aligned(varying, width)
    if task.unranked:
        yield ""
        yield "  Not ranked:"
        for row in task.unranked:
            yield from wrapped(not_ranked(row), width, "  - ")
    yield ""
    for sentence in (*filter(None, [same]), *facts(task)):
        yield from wrapped(sentence, width)


def _blocks(columns: Sequence[Column], width: int) -> list[list[Column]]:
    """Split so that every block fits; each one after the first begins with the row's name."""
    name = next(c for c in columns if not c.number)
    blocks: list[list[Column]] = [[]]
    for column in columns:
        together = [*blocks[-1], column]
        if blocks[-1] and sum(map(_width, together)) + len(_GAP) * len(blocks[-1]) > width:
            blocks.append([name])
        blocks[-1].append(column)
    return blocks


def _lines(columns: Sequence[Column], width: int) -> list[str]:
    rules = tuple("-" * _width(column) for column in columns)
    titles = tuple(column.title for column in columns)
    rows = (titles, rules, *zip(*(column.cells for column in columns), strict=True))
    return [_line(columns, row)[:width] for row in rows]


def _line(columns: Sequence[Column], row: Sequence[str]) -> str:
    cells = (
        _cell(text).rjust(_width(column)) if column.number else _cell(text).ljust(_width(column))
        for text, column in zip(row, columns, strict=True)
    )
    return (" " * _INDENT + _GAP.join(cells)).rstrip()


def _width(column: Column) -> int:
    return max(len(_cell(text)) for text in (column.title, *column.cells))


def _cell(text: str) -> str:
    return shortened(visible(text), _LONGEST)


def wrapped(text: str, width: int, bullet: str = "  ") -> list[str]:
    """A sentence in lines, none of which breaks a p-value or a percentage in two."""
    lines = textwrap.wrap(
        _TOGETHER.sub(lambda found: found[0].replace(" ", _FIXED), visible(text)),
        width,
        initial_indent=bullet,
        subsequent_indent=" " * len(bullet),
        break_on_hyphens=False,
    )
    return [line.replace(_FIXED, " ") for line in lines]
