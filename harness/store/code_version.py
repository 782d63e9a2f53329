"""What code a stage runs, as one hash: it changes when the code does and not when its words do.

The hash covers the module that a stage calls, every `harness` module that it imports (also inside
functions, also through others), the modules of its own package, and the plug-in files that it
names. All are found by reading and never by running, so that no torch is loaded to learn that
nothing has changed. Comments, doc-strings and layout are no part of it; every constant is.

What it cannot see, and what a stage must therefore put into its settings or its `plugins`: a
module that is imported by a name computed at run time, and a file that is read and not imported.
Another minor version of Python may write the same code as another tree, and so make another hash.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path

from harness.errors import RequestError

_LEFT_OUT = {
    "harness.errors": "holds sentences for people: a reworded one moves no number",
    "harness.store.stage": "says where a stage reads and writes: no number passes through it",
    "harness.store.code_version": "reached through harness.store.stage only",
}


@cache
def code_version(call: str, plugins: tuple[Path, ...] = ()) -> str:
    """The hash of all code behind `module:function` and behind the plug-in files, 20 characters.

    Computed once per process: what was imported does not change either.

    Raises:
        ModuleNotFoundError: there is no such module.
        RequestError: a file cannot be read, or is not Python; names the file and the line.
    """
    module = call.partition(":")[0]
    if _spec(module) is None:
        raise ModuleNotFoundError(f"no module named '{module}'", name=module)
    digests = _modules(module, plugins)
    text = "\n".join(f"{name} {digest}" for name, digest in sorted(digests))
    return hashlib.sha256(text.encode()).hexdigest()[:20]


def _modules(module: str, plugins: tuple[Path, ...]) -> set[tuple[str, str]]:
    roots = {"harness", module.partition(".")[0]}
    todo: list[str | Path] = [module, *_parents(module), *plugins]
    seen: set[str | Path] = set()
    digests: set[tuple[str, str]] = set()
    while todo:
        part = todo.pop()
        if part in seen or part in _LEFT_OUT:
            continue
        seen.add(part)
        path = part if isinstance(part, Path) else _origin(part)
        if path is None:
            continue
        digest, imports = _contents(path)
        digests.add((part.name if isinstance(part, Path) else part, digest))
        for name in imports:
            todo += _files(path, name) if isinstance(part, Path) else _named(part, name)
            todo += [n for n in _with_parents(name) if n.partition(".")[0] in roots]
    return digests


def _named(module: str, name: str) -> list[str]:
    """The modules that a relative import may mean in a module that has a name."""
    if not name.startswith("."):
        return []
    spec = _spec(module)
    package = module if spec and spec.submodule_search_locations else module.rpartition(".")[0]
    try:
        return _with_parents(importlib.util.resolve_name(name, package))
    except ImportError:
        return []


def _files(path: Path, name: str) -> list[Path]:
    """The files that a relative import may mean in a plug-in that is only a file."""
    if not name.startswith("."):
        return []
    steps = name.lstrip(".")
    folder = path.parents[len(name) - len(steps) - 1]
    found: list[Path] = []
    for step in steps.split(".") if steps else []:
        folder /= step
        found += [folder.with_name(step + ".py"), folder / "__init__.py"]
    return [file for file in found if file.is_file()]


def _with_parents(name: str) -> list[str]:
    return [] if name.startswith(".") else [name, *_parents(name)]


def _parents(name: str) -> list[str]:
    """The packages above a module: importing it runs them too."""
    parts = name.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


@cache
def _spec(name: str) -> ModuleSpec | None:
    """Where a module is; unlike `importlib.util.find_spec`, without importing its parents."""
    parent = name.rpartition(".")[0]
    folders = None
    if parent:
        above = _spec(parent)
        folders = above.submodule_search_locations if above else None
        if not folders:  # a name in a module, not a module in a package
            return None
    found = (finder.find_spec(name, folders) for finder in sys.meta_path)
    return next((spec for spec in found if spec is not None), None)


def _origin(name: str) -> Path | None:
    spec = _spec(name)
    return Path(spec.origin) if spec and spec.has_location and spec.origin else None


def _contents(path: Path) -> tuple[str, tuple[str, ...]]:
    try:
        source = path.read_bytes()
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from error
    try:
        return _read(source, python=path.suffix == ".py")
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise RequestError(f"{path}{line}: not Python: {error}") from error


@cache
def _read(source: bytes, *, python: bool) -> tuple[str, tuple[str, ...]]:
    """The digest of a file, and the names that it imports, relative ones with their dots."""
    if not python:
        return hashlib.sha256(source).hexdigest(), ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd in a plug-in is said where it is imported
        tree = ast.parse(source)
    imports = tuple(_imports(tree))
    _remove_words(tree)
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports


def _imports(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield base
            joint = "." if node.module else ""
            yield from (f"{base}{joint}{alias.name}" for alias in node.names)


def _remove_words(tree: ast.Module) -> None:
    """Doc-strings, and strings beneath a name that say what it is: they do nothing when run."""
    for node in ast.walk(tree):
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(node, field, None)
            if isinstance(statements, list):
                setattr(node, field, [s for s in statements if not _is_words(s)])


def _is_words(statement: ast.AST) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )
