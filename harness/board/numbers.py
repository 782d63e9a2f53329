"""Numbers as people read them: no more digits than the standard error supports, no locale."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable

_MOST_PLACES = 6
_USUAL_PLACES = 3
NONE = "-"


def places(standard_errors: Iterable[float]) -> int:
    """Decimals of a column: two significant digits of its median standard error."""
    errors = sorted(e for e in standard_errors if math.isfinite(e) and e > 0)
    if not errors:
        return _USUAL_PLACES
    return min(max(1 - math.floor(math.log10(statistics.median_low(errors))), 0), _MOST_PLACES)


def fixed(value: float, decimals: int) -> str:
    """The value with that many decimals, and never a negative zero."""
    text = f"{value:.{decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text


def signed(value: float, decimals: int) -> str:
    """Like `fixed`, with the sign of a difference always shown."""
    text = fixed(value, decimals)
    return text if text.startswith("-") or float(text) == 0 else f"+{text}"


def p_value(p: float | None) -> str:
    """A p-value for a table: two or three decimals, and a bound where it is very small."""
    if p is None:
        return NONE
    if p < 0.001:
        return "<0.001"
    return f"{p:.3f}" if p < 0.1 else f"{p:.2f}"


def p_phrase(p: float) -> str:
    """A p-value for a sentence: `p = 0.004`, `p < 0.001`."""
    text = p_value(p)
    return f"p < {text[1:]}" if text.startswith("<") else f"p = {text}"


def quantity(value: float) -> str:
    """A count of pairs, steps or tokens: all digits below a million, then three of them."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:,.0f}"


def flops(value: float) -> str:
    """Floating-point operations in the form 1.2e12."""
    mantissa, exponent = f"{value:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}" if value else "0"


def stored(value: float | None) -> float | None:
    """The value as files keep it: ten significant digits, the same on every machine."""
    return None if value is None or not math.isfinite(value) else float(f"{value:.10g}")
