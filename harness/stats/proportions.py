"""Shares: their interval, and the size of the difference of two."""

from __future__ import annotations

import math

from scipy import stats


def wilson_interval(count: int, of: int, *, level: float = 0.95) -> tuple[float, float]:
    """Both ends of Wilson's interval of a share, which stays within 0 and 1.

    Raises:
        ValueError: more than there are, none, or `level` outside (0, 1).
    """
    if not 0 <= count <= of or not of:
        raise ValueError(f"expected a count between 0 and their number, got {count} of {of}")
    found = stats.binomtest(count, of).proportion_ci(confidence_level=level, method="wilson")
    return float(found.low), float(found.high)


def cohens_h(first: float, second: float) -> float:
    """The size of the difference of two shares on the scale on which their variance is constant.

    Raises:
        ValueError: a share outside [0, 1].
    """
    if not (0.0 <= first <= 1.0 and 0.0 <= second <= 1.0):
        raise ValueError(f"shares lie between 0 and 1, got {first} and {second}")
    return 2.0 * (math.asin(math.sqrt(first)) - math.asin(math.sqrt(second)))
