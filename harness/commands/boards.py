"""`harness board` and `harness compare`: from scores alone."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from pathlib import Path

from harness.board.compare import compare as compare_scores
from harness.board.compare import render_comparison
from harness.board.compute import build
from harness.board.files import write
from harness.board.screen import show
from harness.errors import DataError, RequestError
from harness.scores import Scores, read_scores


def rebuild(args: Namespace) -> int:
    """Write and print the board of each run again."""
    if args.out and len(args.run) > 1:
        raise RequestError("--out takes the board of one run; name one run, or leave --out away")
    for run in args.run:
        scores = _read(run)
        out = Path(args.out) if args.out else Path("leaderboards") / scores.header.experiment
        board = build(scores)
        write(board, out)
        show(board)
        print(f"\nBoard: {out}/index.html", file=sys.stderr)
    return 0


def compare(args: Namespace) -> int:
    """Print the difference of two methods, on every board or on one."""
    scores = _read(args.run or _newest(Path(args.runs)))
    print(render_comparison(compare_scores(scores, args.a, args.b, args.task)), end="")
    return 0


def _read(run: str | Path) -> Scores:
    path = Path(run)
    return read_scores(path if path.suffix == ".parquet" else path / "scores.parquet")


def _newest(runs: Path) -> Path:
    found = sorted(runs.glob("*/scores.parquet"), key=os.path.getmtime)
    if not found:
        raise DataError(f"no runs in {runs}: name one with --run")
    return found[-1].parent
