"""Settings of a plug-in: plain values, checked against the annotation of their parameter."""

from __future__ import annotations

import math
from typing import Any, Literal, TypeAlias, get_args, get_origin

from harness.errors import RequestError, unknown

Setting: TypeAlias = float | int | bool | str | None


def checked(key: str, value: Any, kind: Any) -> Setting:
    """The value in the type of its annotation, or an error that says what was expected.

    Raises:
        RequestError: the value is not of that type.
    """
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise unknown(f"value of '{key}'", str(value), map(str, get_args(kind)))
        return value  # type: ignore[no-any-return]
    optional = type(None) in get_args(kind)
    if value is None and optional:
        return None
    wanted = next((k for k in get_args(kind) if k is not type(None)), kind)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if wanted is float and number and math.isfinite(value):
        return float(value)
    if wanted in (int, bool, str) and type(value) is wanted:
        return value  # type: ignore[no-any-return]
    raise RequestError(
        f"'{key}' must be of type {getattr(wanted, '__name__', wanted)}, not {value!r}"
    )
