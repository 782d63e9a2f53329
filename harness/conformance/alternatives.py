"""Other values of settings: what could be chosen instead of a default."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

from harness.contracts.method import Method
from harness.contracts.settings import Setting
from harness.errors import RequestError

FACTORS = (2.0, 0.5, 1e3, 1e-3)


def alternatives(method: Method, key: str) -> list[Setting]:
    """Valid values of a setting other than its default, the most telling ones first."""
    kind, default = get_type_hints(method.loss)[key], method.defaults[key]
    grid = method.grid.get(key, ())
    numbers = [*_numbers(kind, default), *_ends(method, key)]
    return _valid(method, key, [*_words(kind, default), *grid, *numbers])


def forms(method: Method) -> list[dict[str, Setting]]:
    """Changes of one setting each to another word, the other bool, or from or to None."""
    hints = get_type_hints(method.loss)
    found: list[dict[str, Setting]] = []
    for key, default in method.defaults.items():
        words = _valid(method, key, _words(hints[key], default))
        # Of the numbers that an optional setting may have instead of None, one is enough.
        some = words[:1] if default is None else words
        found += [{**enabling(method, key), key: value} for value in some]
    return found


def corners(method: Method) -> list[dict[str, Setting]]:
    """Changes of one number each to a value of its grid, or to an end that its bounds include."""
    return [
        {**enabling(method, key), key: value}
        for key, default in method.defaults.items() if _is_number(default)
        for value in _valid(method, key, [*_ends(method, key), *method.grid.get(key, ())])
    ]  # fmt: skip


def enabling(method: Method, key: str) -> dict[str, Setting]:
    """A change that makes a setting have an effect; none where it has one at the defaults."""
    if method.uses(key, method.defaults):
        return {}
    return {other: values[0] for other, values in list(method.only_for[key].items())[:1]}


def combined(*changes: Mapping[str, Setting]) -> dict[str, Setting]:
    """Several changes as one."""
    return {key: value for change in changes for key, value in change.items()}


def _ends(method: Method, key: str) -> list[Setting]:
    """The finite ends of a setting's bounds, whether they are included or not."""
    text = method.bounds.get(key, "").strip("[]()")
    numbers = [float(part) for part in text.split(",")] if text else []
    whole = isinstance(method.defaults[key], int)
    return [int(number) if whole else number for number in numbers if math.isfinite(number)]


def _words(kind: Any, default: Setting) -> list[Setting]:
    if get_origin(kind) is Literal:
        return list(get_args(kind))
    if isinstance(default, bool):
        return [not default]
    if type(None) in get_args(kind):
        return [1.0, 0.1, 10.0, 1, 10] if default is None else [None]
    return []


def _numbers(kind: Any, default: Setting) -> list[Setting]:
    if not _is_number(default) or get_origin(kind) is Literal:
        return []
    around = [default * factor for factor in FACTORS] + [default + 1, default - 1, 0.5, -0.5]  # type: ignore[operator]
    whole = [round(number) for number in around]
    return [*whole, 0, 1] if isinstance(default, int) else [*around, 0.0, 1.0]


def _is_number(value: Setting) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _valid(method: Method, key: str, values: Iterable[Setting]) -> list[Setting]:
    return list(_distinct(method, key, values))


def _distinct(method: Method, key: str, values: Iterable[Setting]) -> Iterator[Setting]:
    seen = {_identity(method.defaults[key])}
    for value in values:
        try:
            resolved = method.resolve({**enabling(method, key), key: value})[key]
        except RequestError:
            continue
        if _identity(resolved) not in seen:
            seen.add(_identity(resolved))
            yield resolved


def _identity(value: Setting) -> tuple[str, Setting]:
    """Python holds 1, 1.0 and True for one value."""
    return type(value).__name__, value
