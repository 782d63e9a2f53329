"""`harness show`: all that is known of a method or a task."""

from __future__ import annotations

import textwrap
from argparse import Namespace

from harness.commands.table import print_table
from harness.errors import unknown
from harness.registry import found, load_method, load_task


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
    print_table(
        [
            ("reads", ", ".join(method.reads), ""),
            ("source", f"{method.source} ({method.status})", ""),
            ("coupled", "yes: losses of a step hang together" if method.coupled else "no", ""),
            ("at reference", f"loss {method.at_reference:.6g}" if method.at_reference is not None
             else "no fixed value", ""),
        ]
    )  # fmt: skip
    print("settings:")
    print_table(
        (key, f"{value!r}", _values(method.grid.get(key))) for key, value in method.defaults.items()
    )


def _show_task(name: str) -> None:
    task = load_task(name)
    _heading(task.name, task.build.__doc__)
    print_table([("boards", ", ".join(f"{name}-{v}" for v in task.variants) or name, "")])
    print("settings:")
    print_table((key, f"{value!r}", "") for key, value in task.defaults.items())


def _heading(name: str, doc: str | None) -> None:
    print(name)
    for line in textwrap.dedent("    " + (doc or "")).strip().splitlines():
        print(f"  {line}" if line else "")
    print()


def _values(grid: tuple[object, ...] | None) -> str:
    return "" if not grid else "worth trying: " + ", ".join(map(str, grid))
