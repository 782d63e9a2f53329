"""Settings of a plug-in: plain values, checked against the annotation of their parameter."""

from __future__ import annotations

import math
import re
from typing import Any, Literal, TypeAlias, get_args, get_origin

from harness.errors import RequestError, unknown

Setting: TypeAlias = float | int | bool | str | None


def checked(key: str, value: Any, kind: Any) -> Setting:
    """The value in the type of its annotation, or an error that says what was expected.

    The word "none" is None for a setting that may be None and is no text.

    Raises:
        RequestError: the value is not of that type.
    """
    if kind is None:
        raise RequestError(f"'{key}' has no type: annotate it as float, int, bool, str or Literal")
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise unknown(f"value of '{key}'", str(value), map(str, get_args(kind)))
        return value  # type: ignore[no-any-return]
    optional = type(None) in get_args(kind)
    # A command line and TOML have no other way to say it.
    if optional and (value is None or (value == "none" and str not in get_args(kind))):
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


def within(key: str, value: Setting, interval: str) -> None:
    """Refuse a number outside an interval, written as in mathematics: "(0, inf)", "[0, 1]".

    A square bracket includes its end and a round one does not. None, the value of an optional
    setting that is off, lies in every interval.

    Raises:
        RequestError: the value is outside, or the interval cannot be read.
    """
    end = r" *(-?(?:inf|[\d.]+(?:e-?\d+)?)) *"
    parts = re.fullmatch(rf"([\[(]){end},{end}([\])])", interval)
    if parts is None:
        raise RequestError(f"'{key}': cannot read {interval!r} as an interval such as '(0, 1]'")
    if value is None:
        return
    low, number, high = float(parts[2]), float(value), float(parts[3])
    above = low <= number if parts[1] == "[" else low < number
    below = number <= high if parts[4] == "]" else number < high
    if not (above and below):
        raise RequestError(f"'{key}' must lie in {interval}, not {value!r}")
