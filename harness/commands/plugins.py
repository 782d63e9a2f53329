"""`harness list`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from harness.commands.table import print_table
from harness.registry import found, worlds


def listing(args: Namespace) -> int:
    """Print what exists; imports no plug-in."""
    if args.kind == "runs":
        runs = sorted(Path(args.runs).glob("*/scores.parquet"))
        print("\n".join(str(path.parent) for path in runs) or f"no runs in {args.runs}")
        return 0
    if args.kind == "worlds":
        print_table([(name, summary, "") for name, summary in worlds()])
        return 0
    for kind in ("methods", "tasks"):
        if args.kind in (None, kind):
            plugins = found(kind).values()
            rows = [
                (p.name, p.summary, "" if p.origin == "built in" else p.origin) for p in plugins
            ]
            print(f"{kind}:")
            print_table(rows)
    return 0
