"""Find plug-ins: the folders of this project, entry points of other distributions, a path.

Nothing is imported until it is named. What a list shows is read from the text of the files, so that
a plug-in that is broken, or slow to import, troubles nobody who did not ask for it.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from harness.errors import RequestError, unknown

if TYPE_CHECKING:
    from harness.contracts.method import Method
    from harness.contracts.task import TaskPlugin

Kind: TypeAlias = Literal["methods", "tasks"]
Plugin = TypeVar("Plugin", "Method", "TaskPlugin")


@dataclass(frozen=True)
class Found:
    """A plug-in that exists; whether it can be imported is known when it is named.

    Attributes:
        name: of the function, of its file or entry point, and on the command line.
        origin: "built in", the distribution that brings it, or the path that was given.
        module: what is imported when it is named; empty for a path.
        attribute: the function in that module.
        file: where the module stands, if that can be told without importing it.
        summary: first line of the function's docstring, read from the text.
        source: the decorator's `source=`, where it is a literal.
        rivals: other origins of the same name; one that has any cannot be loaded.
    """

    name: str
    origin: str
    module: str
    attribute: str
    file: Path | None
    summary: str
    source: str
    rivals: tuple[str, ...] = ()


def found(kind: Kind) -> dict[str, Found]:
    """All plug-ins of a kind that are built in or installed, by name, sorted.

    Raises:
        RequestError: the built-in ones are missing: a checkout that was never installed.
    """
    plugins: dict[str, Found] = {}
    for plugin in (*_built_in(kind), *_installed(kind)):
        first = plugins.setdefault(plugin.name, plugin)
        if first is not plugin:
            plugins[plugin.name] = replace(first, rivals=(*first.rivals, plugin.origin))
    return dict(sorted(plugins.items()))


def load_method(name_or_path: str) -> Method:
    """Import one method, by its name or by the path of a file such as `./mine.py`.

    Raises:
        RequestError: unknown, claimed twice, not importable, or not a method of that name.
    """
    from harness.contracts.method import Method

    return _load(name_or_path, "methods", Method)


def load_task(name_or_path: str) -> TaskPlugin:
    """Import one task, by its name or by the path of a file.

    Raises:
        RequestError: unknown, claimed twice, not importable, or not a task of that name.
    """
    from harness.contracts.task import TaskPlugin

    return _load(name_or_path, "tasks", TaskPlugin)


def worlds() -> list[tuple[str, str]]:
    """Name and summary of every embedded world: a module beside the tasks with an `__all__`.

    Raises:
        RequestError: the built-in tasks are missing: a checkout that was never installed.
    """
    folders = {plugin.file.parent for plugin in _built_in("tasks") if plugin.file}
    files = sorted(file for folder in folders for file in folder.glob("worlds/*.py"))
    trees = [(file.stem, ast.parse(file.read_text(encoding="utf-8"))) for file in files]
    return [
        (name, (ast.get_docstring(tree) or "").split("\n", 1)[0])
        for name, tree in trees
        if any("__all__" in map(ast.unparse, _targets(node)) for node in tree.body)
    ]


def _targets(node: ast.stmt) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else []


def source_files(name_or_path: str, kind: Kind) -> list[Path]:
    """The file of a plug-in, then every file of its own package that it imports, however deep.

    Results are keyed by what these files hold, and a key must not cost an import: the imports are
    read from the text, those inside functions too.

    Raises:
        RequestError: unknown, claimed twice, or without a file of source text.
    """
    plugin = _named(name_or_path, kind)
    if plugin.file is None:
        raise RequestError(
            f"{kind[:-1]} '{plugin.name}' of {plugin.origin}: no source file of '{plugin.module}' "
            "was found, so its results could not be told from those of another version"
        )
    package = "" if plugin.origin == "built in" else plugin.module.partition(".")[0]
    seen, waiting = {plugin.file}, [plugin.file]
    while waiting:
        new = set(_own_imports(waiting.pop(), package)) - seen
        seen |= new
        waiting += new
    return [plugin.file, *sorted(seen - {plugin.file})]


def _built_in(kind: Kind) -> Iterator[Found]:
    spec = importlib.util.find_spec(f"harness.{kind}")
    if spec is None or not spec.submodule_search_locations:
        raise RequestError(
            f"harness.{kind} is missing: this is a checkout that was never installed. "
            "Run `pip install -e .` in it once"
        )
    for file in Path(spec.submodule_search_locations[0]).glob("[!_]*.py"):
        yield _described(file.stem, "built in", f"harness.{kind}.{file.stem}", file.stem, file)


def _installed(kind: Kind) -> Iterator[Found]:
    for entry in entry_points(group=f"harness.{kind}"):
        origin = entry.dist.name if entry.dist else entry.module
        file = _module_file(entry.module)
        yield _described(entry.name, origin, entry.module, entry.attr or entry.name, file)


def _at_path(path: str, known: dict[str, Found]) -> Found:
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise RequestError(f"no file '{path}': a plug-in's path is that of one Python file")
    namesake = known.get(file.stem)
    if namesake and namesake.file and namesake.file.resolve() == file:
        return namesake
    plugin = _described(file.stem, path, "", file.stem, file)
    return replace(plugin, rivals=(namesake.origin, *namesake.rivals)) if namesake else plugin


def _named(name_or_path: str, kind: Kind) -> Found:
    """The one plug-in that is meant."""
    known = found(kind)
    if name_or_path.endswith(".py") or "/" in name_or_path or "\\" in name_or_path:
        plugin = _at_path(name_or_path, known)
    elif name_or_path in known:
        plugin = known[name_or_path]
    else:
        raise unknown(kind[:-1], name_or_path, known)
    if plugin.rivals:
        raise RequestError(
            f"{len(plugin.rivals) + 1} {kind} are called '{plugin.name}': "
            f"{' and '.join((plugin.origin, *plugin.rivals))}. Rename or uninstall all but one: "
            "a board could not tell them apart"
        )
    return plugin


def _load(name_or_path: str, kind: Kind, wanted: type[Plugin]) -> Plugin:
    plugin = _named(name_or_path, kind)
    name, where, noun = plugin.name, plugin.file or plugin.module, kind[:-1]
    try:
        module = importlib.import_module(plugin.module) if plugin.module else _module_at(plugin)
    except (Exception, SystemExit) as error:  # foreign code may raise anything, or try to leave
        raise RequestError(
            f"{noun} '{name}' ({plugin.origin}) cannot be imported: {where}{_line(error, where)}: "
            f"{type(error).__name__}: {error}"
        ) from error
    loaded = getattr(module, plugin.attribute, None)
    if loaded is None:
        raise RequestError(f"{where} defines no '{plugin.attribute}': {noun} and file share a name")
    if not isinstance(loaded, wanted):
        raise RequestError(f"'{plugin.attribute}' in {where} is no {noun}: put @{noun} above it")
    if loaded.name != name:
        raise RequestError(f"{noun} '{name}' in {where} is called '{loaded.name}': rename one")
    return loaded


def _module_at(plugin: Found) -> ModuleType:
    """Import a file by its path, under a name that no other file can have."""
    name = f"harness_at_{zlib.crc32(str(plugin.file).encode()):08x}_{plugin.name}"
    spec = importlib.util.spec_from_file_location(name, str(plugin.file))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _line(error: BaseException, file: Path | str) -> str:
    """The innermost line of a file that an error passed through, in words, if any."""
    line = error.lineno if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace:
        if trace.tb_frame.f_code.co_filename == str(file):
            line = trace.tb_lineno
        trace = trace.tb_next
    return f", line {line}" if line else ""


def _described(name: str, origin: str, module: str, attribute: str, file: Path | None) -> Found:
    """A plug-in with what the text of its file says about it."""
    summary = source = ""
    for node in _parsed(file).body:
        if isinstance(node, ast.FunctionDef) and node.name == attribute:
            summary = (ast.get_docstring(node) or "").split("\n", 1)[0]
            source = _literal_source(node)
    return Found(name, origin, module, attribute, file, summary, source)


def _literal_source(function: ast.FunctionDef) -> str:
    calls = [call for call in function.decorator_list if isinstance(call, ast.Call)]
    values = [word.value for call in calls for word in call.keywords if word.arg == "source"]
    return next((str(value.value) for value in values if isinstance(value, ast.Constant)), "")


def _parsed(file: Path | None) -> ast.Module:
    try:
        return ast.parse(file.read_bytes() if file else b"")
    except (OSError, SyntaxError, ValueError):
        return ast.Module([], [])  # still listed; who names it is told what is wrong


def _own_imports(file: Path, package: str) -> Iterator[Path]:
    """Files of the same package that a file imports, with the packages on the way to them."""
    for level, dotted in _imports(_parsed(file)):
        parts = [part for part in dotted.split(".") if part]
        if level:
            folder = file.parents[level - 1]
            files = [_below(folder, parts[:length]) for length in range(len(parts) + 1)]
        elif package and parts[0] == package:
            names = [".".join(parts[:length]) for length in range(1, len(parts) + 1)]
            files = [_module_file(name) for name in names]
        else:
            continue
        yield from (own for own in files if own)


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Each import as its number of leading dots and the rest; `from a import b` may name a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.level, f"{node.module or ''}.{alias.name}") for alias in node.names)


def _module_file(module: str) -> Path | None:
    """Where a module stands; imports neither it nor its parents."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # a name that is no name, or a module without a spec
        spec = None
    if spec is None:
        return None
    if rest:
        folders = spec.submodule_search_locations or ()
        return next((file for folder in folders if (file := _below(Path(folder), rest))), None)
    return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None


def _below(folder: Path, parts: list[str]) -> Path | None:
    """The file of a package or module below a folder; with no parts, of the folder itself."""
    package = folder.joinpath(*parts, "__init__.py")
    module = folder.joinpath(*parts).with_suffix(".py")
    choices = (package, module) if parts else (package,)
    return next((choice for choice in choices if choice.is_file()), None)
