"""A board as GitHub's Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.board.columns import Column, details, ranking
from harness.board.contents import Board, TaskBoard
from harness.board.footer import facts, methodology, settings
from harness.board.terminal import not_ranked, summary
from harness.board.text import markdown, markdown_line
from harness.board.verdict import verdict
from harness.visible import visible


def document(board: Board) -> str:
    """All tasks of a board as one Markdown document."""
    return "\n".join(_lines(board)) + "\n"


def _lines(board: Board) -> Iterator[str]:
    yield f"# {markdown_line(board.experiment)}"
    yield ""
    # Indented, not fenced: text on one line cannot end an indented block.
    yield f"    {visible(board.command)}"
    for note in board.notes:
        yield ""
        yield f"> {markdown_line(note)}"
    for task in board.tasks:
        yield ""
        yield from _task(task)
    yield ""
    yield "## How to read this"
    yield ""
    yield from _bullets(methodology(board))
    yield f"- Budget of every run: {markdown(settings(board.budget))}."
    yield f"- Versions: {markdown(settings(board.versions))}."


def _task(task: TaskBoard) -> Iterator[str]:
    yield f"## {markdown_line(task.name)}"
    yield ""
    yield markdown_line(summary(task))
    yield ""
    yield from _bullets(verdict(task))
    if task.rows:
        yield ""
        yield from _table(ranking(task))
        yield ""
        yield from _table(details(task))
    if task.unranked:
        yield ""
        yield "Not ranked:"
        yield ""
        yield from _bullets([not_ranked(row) for row in task.unranked])
    yield ""
    yield markdown_line(" ".join(facts(task)))


def _bullets(sentences: Sequence[str]) -> Iterator[str]:
    for sentence in sentences:
        yield f"- {markdown_line(sentence)}"


def _table(columns: Sequence[Column]) -> Iterator[str]:
    yield _row([c.title for c in columns])
    yield "|" + "|".join(" ---: " if c.number else " --- " for c in columns) + "|"
    for cells in zip(*(c.cells for c in columns), strict=True):
        yield _row(cells)


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(markdown, cells)) + " |"
