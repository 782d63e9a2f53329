"""What is known of a method or a task, for a terminal."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping

from harness.commands.facts import Docstring, docstring, facts, letters, reads, settings
from harness.contracts.method import Method
from harness.contracts.task import TaskPlugin

WIDEST = 100


def print_method(method: Method) -> None:
    """Print all that a method declares."""
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


def print_task(task: TaskPlugin) -> None:
    """Print a task's boards and settings."""
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
