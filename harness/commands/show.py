"""`harness show`: all that is known of a method or a task."""

from __future__ import annotations

import re
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import RequestError, unknown
from harness.registry import found, load_method, load_task

if TYPE_CHECKING:
    from harness.contracts.method import Method
    from harness.contracts.task import TaskPlugin


def show(args: Namespace) -> int:
    """Print all that is known of a method or a task, or the page of all built-in methods.

    Raises:
        RequestError: nothing is named, or there is neither a method nor a task of that name.
    """
    if args.name is None and not args.markdown:
        raise RequestError("show what? `harness list` says which methods and tasks there are")
    plugin = None if args.name is None else _load(args.name)
    # Imported when it is known that there is work: `harness list` stays far from torch.
    from harness.commands.methods_page import page, section
    from harness.commands.screen import print_method, print_task
    from harness.contracts.task import TaskPlugin

    if plugin is None:
        # Those of other distributions would make the page one of this machine.
        built_in = [name for name, where in found("methods").items() if where.origin == "built in"]
        print(page(map(load_method, built_in)), end="")
    elif isinstance(plugin, TaskPlugin):
        if args.markdown:
            raise RequestError(f"--markdown describes methods, and '{args.name}' is a task")
        print_task(plugin)
    elif args.markdown:
        print(section(plugin), end="")
    else:
        print_method(plugin)
    return 0


def _load(name: str) -> Method | TaskPlugin:
    if "/" in name or "\\" in name or name.endswith(".py"):
        return load_task(name) if _says_task(Path(name).expanduser()) else load_method(name)
    if name in found("tasks"):
        return load_task(name)
    if name in found("methods"):
        return load_method(name)
    raise unknown("method or task", name, [*found("methods"), *found("tasks")])


def _says_task(file: Path) -> bool:
    """Whether a file is a task by its text, so that no file is imported as the wrong kind."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    return re.search(r"^@(\w+\.)*task\b", text, re.MULTILINE) is not None
