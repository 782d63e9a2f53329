"""The files of a board; writing them twice gives the same bytes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from harness.board.contents import Board
from harness.board.exports import as_csv, as_json, leaderboard, pairwise
from harness.board.markdown import document
from harness.board.page import page
from harness.board.plot import DIVERGENCE, frontier
from harness.board.text import file_name
from harness.files import replacing


def write(board: Board, folder: Path) -> list[Path]:
    """Write all files of a board into a folder, each one whole or not at all; returns them."""
    contents = {
        "leaderboard.json": as_json(board),
        "leaderboard.csv": as_csv(leaderboard(board)),
        "pairwise.csv": as_csv(pairwise(board)),
        "leaderboard.md": document(board),
        "index.html": page(board),
        **{f"plots/{name}": text for name, text in _plots(board)},
    }
    return [_written(folder / name, text) for name, text in contents.items()]


def _written(path: Path, text: str) -> Path:
    with replacing(path) as aside:
        # A name from outside may hold a lone surrogate, which UTF-8 has no bytes for.
        aside.write_bytes(text.encode("utf-8", "backslashreplace"))
    return path


def _plots(board: Board) -> Iterator[tuple[str, str]]:
    several: Counter[str] = Counter()
    for task in board.tasks:
        name = f"{file_name(task.name)}-{file_name(task.primary.name)}-{DIVERGENCE}"
        several[name] += 1
        text = frontier(task)
        if text:
            yield f"{name}{f'-{several[name]}' if several[name] > 1 else ''}.svg", text
