"""A board on a person's screen: tables with rules and emphasis; plain text anywhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from harness.board.columns import Column, details, folded, ranking
from harness.board.contents import Board, TaskBoard
from harness.board.footer import closing, facts
from harness.board.terminal import not_ranked, render, summary
from harness.board.verdict import verdict
from harness.visible import visible


def show(board: Board, console: Console | None = None) -> None:
    """Print a board to standard output, as a person or as a program reads it."""
    console = console or Console()
    if not console.is_terminal:
        print(render(board), end="", file=console.file)
        return
    for task in board.tasks:
        console.print(*_task(task), sep="\n")
    for sentence in closing(board):
        console.print(_text(sentence, "dim"))


def _task(task: TaskBoard) -> Iterator[RenderableType]:
    yield Text.assemble((visible(task.name), "bold"), "  ", _text(summary(task), "dim"))
    for sentence in verdict(task):
        yield Padding(_text(f"• {sentence}"), (0, 0, 0, 1))
    same = ""
    if task.rows:
        varying, same = folded(details(task))
        yield _table(ranking(task))
        yield _table(varying)
    for row in task.unranked:
        yield _text(f"  Not ranked: {not_ranked(row)}", "yellow")
    for sentence in (*filter(None, [same]), *facts(task)):
        yield _text(sentence, "dim")
    yield Text()


def _table(columns: Sequence[Column]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(
            _text(column.title),
            justify="right" if column.number else "left",
            style="bold" if column.title == "method" else "",
        )
    for cells in zip(*(column.cells for column in columns), strict=True):
        table.add_row(*map(_text, cells))
    return table


def _text(text: str, style: str = "") -> Text:
    """Never markup: a name in square brackets is a name."""
    return Text(visible(text), style)
