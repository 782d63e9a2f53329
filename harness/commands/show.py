"""`harness show`: all that is known of a method or a task."""

from __future__ import annotations

import re
import shutil
import textwrap
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

from harness.commands.facts import Docstring, docstring, facts, letters, reads, settings
from harness.commands.methods_page import page, section
from harness.contracts.method import Method
from harness.contracts.task import TaskPlugin
from harness.errors import RequestError, unknown
from harness.registry import found, load_method, load_task

WIDEST = 100


def show(args: Namespace) -> int:
    """Print all that is known of a method or a task, or the page of all built-in methods.

    Raises:
        RequestError: nothing is named, or there is neither a method nor a task of that name.
    """
    if args.name is None and not args.markdown:
        raise RequestError("show what? `harness list` says which methods and tasks there are")
    if args.name is None:
        names = [name for name, plugin in found("methods").items() if plugin.origin == "built in"]
        print(page(map(load_method, names)), end="")
        return 0
    plugin = _load(args.name)
    if args.markdown:
        if isinstance(plugin, TaskPlugin):
            raise RequestError(f"--markdown describes methods, and '{args.name}' is a task")
        print(section(plugin), end="")
    elif isinstance(plugin, TaskPlugin):
        _show_task(plugin)
    else:
        _show_method(plugin)
    return 0


def _load(name: str) -> Method | TaskPlugin:
    if "/" in name or "\\" in name or name.endswith(".py"):
        return load_task(name) if _says_task(Path(name)) else load_method(name)
    if name in found("tasks"):
        return load_task(name)
    if name in found("methods"):
        return load_method(name)
    raise unknown("method or task", name, [*found("methods"), *found("tasks")])


def _says_task(file: Path) -> bool:
    """Whether a file is a task by its text, so that no file is imported as the wrong kind."""
    text = file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
    return re.search(r"^@(\w+\.)*task\b", text, re.MULTILINE) is not None


def _show_method(method: Method) -> None:
    _heading(method.name, docstring(method.loss))
    if method.formula:
        _part("formula", method.formula)
        _rows(letters(method.formula), indent=4)
    print("\nreads")
    _rows(reads(method))
    _settings(method)
    print("\nwhat is known")
    _rows(facts(method))
    if method.disagreements:
        print("\nwhere sources disagree")
    for sentence in method.disagreements:
        _print(sentence, "  - ")


def _show_task(task: TaskPlugin) -> None:
    said = docstring(task.build)
    _heading(task.name, said)
    _part("boards", ", ".join(f"{task.name}-{v}" for v in task.variants) or task.name)
    _settings(task)


def _heading(name: str, said: Docstring) -> None:
    print(f"{name}\n{'=' * len(name)}")
    for paragraph in said.paragraphs:
        _print(paragraph)
        print()
    if said.returns:
        _part("returns", said.returns)
        print()


def _part(title: str, text: str) -> None:
    print(title)
    _print(text, "  ")


def _settings(plugin: Method | TaskPlugin) -> None:
    """The settings, each with what it means below it."""
    rows = settings(plugin)
    shown = next((row for row in rows if row.default != "none"), None)
    example = f", as in --set {plugin.name}.{shown.name}={shown.default}" if shown else ""
    print(f"\nsettings{example}" if rows else "\nno settings")
    for row in rows:
        more = [row.allowed, row.tried and f"worth trying: {row.tried}"]
        _print("; ".join([f"{row.name} = {row.default}", *filter(None, more)]), "  ")
        if row.meaning:
            _print(row.meaning, "      ")


def _rows(rows: Mapping[str, str], indent: int = 2) -> None:
    """Names in a column of their own, what is said of them beside it."""
    first = max(map(len, rows), default=0)
    for name, text in rows.items():
        _print(text, f"{'':{indent}}{name:<{first}}  ", " " * (indent + first + 2))


def _print(text: str, first: str = "", rest: str | None = None) -> None:
    """Print one paragraph, wrapped to the terminal but never wider than can be read."""
    width = min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns)
    rest = " " * len(first) if rest is None else rest
    print(textwrap.fill(text, width, initial_indent=first, subsequent_indent=rest,
                        break_on_hyphens=False, break_long_words=False))  # fmt: skip
