"""`harness list` and `harness show`."""

from __future__ import annotations

import shutil
import textwrap
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path

from harness.errors import unknown
from harness.registry import found, load_method, load_task, worlds


def listing(args: Namespace) -> int:
    """Print what exists; imports no plug-in."""
    if args.kind == "runs":
        runs = sorted(Path(args.runs).glob("*/scores.parquet"))
        print("\n".join(str(path.parent) for path in runs) or f"no runs in {args.runs}")
        return 0
    if args.kind == "worlds":
        _table([(name, summary, "") for name, summary in worlds()])
        return 0
    for kind in ("methods", "tasks"):
        if args.kind in (None, kind):
            plugins = found(kind).values()
            rows = [
                (p.name, p.summary, "" if p.origin == "built in" else p.origin) for p in plugins
            ]
            print(f"{kind}:")
            _table(rows)
    return 0


def show(args: Namespace) -> int:
    """Print all that is known of a method or a task.

    Raises:
        RequestError: there is neither of that name.
    """
    if args.name in found("tasks"):
        _show_task(args.name)
    elif args.name in found("methods") or args.name.endswith(".py"):
        _show_method(args.name)
    else:
        raise unknown("method or task", args.name, [*found("methods"), *found("tasks")])
    return 0


def _show_method(name: str) -> None:
    method = load_method(name)
    _heading(method.name, method.loss.__doc__)
    _table(
        [
            ("reads", ", ".join(method.reads), ""),
            ("source", f"{method.source} ({method.status})", ""),
            ("coupled", "yes: losses of a step hang together" if method.coupled else "no", ""),
            ("at reference", f"loss {method.at_reference:.6g}" if method.at_reference is not None
             else "no fixed value", ""),
        ]
    )  # fmt: skip
    print("settings:")
    _table(
        (key, f"{value!r}", _values(method.grid.get(key))) for key, value in method.defaults.items()
    )


def _show_task(name: str) -> None:
    task = load_task(name)
    _heading(task.name, task.build.__doc__)
    _table([("boards", ", ".join(f"{name}-{v}" for v in task.variants) or name, "")])
    print("settings:")
    _table((key, f"{value!r}", "") for key, value in task.defaults.items())


def _heading(name: str, doc: str | None) -> None:
    print(name)
    for line in textwrap.dedent("    " + (doc or "")).strip().splitlines():
        print(f"  {line}" if line else "")
    print()


def _values(grid: tuple[object, ...] | None) -> str:
    return "" if not grid else "worth trying: " + ", ".join(map(str, grid))


def _table(rows: Iterable[tuple[str, str, str]]) -> None:
    rows = list(rows)
    first = max((len(row[0]) for row in rows), default=0)
    width = shutil.get_terminal_size((100, 24)).columns
    for name, text, more in rows:
        line = f"  {name:<{first}}  {text}" + (f"  [{more}]" if more else "")
        print(
            "\n".join(
                textwrap.wrap(
                    line, width, subsequent_indent=" " * (first + 4), drop_whitespace=True
                )
            )
            or line
        )
