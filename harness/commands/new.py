"""`harness new method NAME`: a method to start from, and its test."""

from __future__ import annotations

import keyword
import shlex
from argparse import Namespace
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

from harness.errors import RequestError
from harness.registry import found

TEMPLATES = {"{name}.py": "new_method.template", "test_{name}.py": "new_test.template"}


def new(args: Namespace) -> int:
    """Write both files and say what to do with them.

    Raises:
        RequestError: the name or the folder will not do, or a file is there already.
    """
    folder = Path(args.out)
    _check_name(args.name)
    texts = {
        folder / file.format(name=args.name): _filled(template, args.name)
        for file, template in TEMPLATES.items()
    }
    _write(texts)
    own, test = (shlex.quote(str(path)) for path in texts)
    path = own if args.out != "." else f"./{own}"
    print(
        f"wrote {own} and {test}\n"
        "Put your loss where the squared hinge is, your numbers where its numbers are, then:\n\n"
        f"    pytest {test}\n"
        f"    harness check {path}\n"
        f"    harness run --methods dpo,{path} --budget smoke"
    )
    return 0


def _check_name(name: str) -> None:
    if not (name.isascii() and name.isidentifier() and name[0].isalpha() and name == name.lower()):
        raise RequestError(
            f"'{name}' cannot name a method: lower-case letters, digits and _, the first a letter"
        )
    if keyword.iskeyword(name):
        raise RequestError(f"'{name}' cannot name a method: it is a word of Python's own")
    if name in (known := found("methods")):
        raise RequestError(
            f"there is a method '{name}' already ({known[name].origin}): choose another name, a "
            "board could not tell them apart"
        )
    # Beside its test a file `random.py` would be what everybody's `import random` finds.
    module = find_spec(name)
    if module and module.origin and Path(module.origin).parent != Path.cwd():
        raise RequestError(f"'{name}' is a module that others import: choose another name")


def _filled(template: str, name: str) -> str:
    text = files("harness.commands").joinpath(template).read_text(encoding="utf-8")
    return text.replace("NAME", name)


def _write(texts: dict[Path, str]) -> None:
    """Write the files; where one of them is there already, none."""
    if taken := [str(path) for path in texts if path.exists()]:
        raise RequestError(f"{taken[0]} is there already, and nothing is overwritten")
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("x", encoding="utf-8") as file:
                file.write(text)
    except OSError as error:
        raise RequestError(f"cannot write {path}: {error.strerror}") from error
