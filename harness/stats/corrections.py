"""Adjusted p values of several tests: reject where the adjusted p is below the level."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import stats


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down p values, in the order given: one false rejection or more is rare.

    Source: Holm 1979, Scandinavian Journal of Statistics 6, 65-70.

    Raises:
        ValueError: a p outside [0, 1].
    """
    raw = _checked(p)
    order = np.argsort(raw, kind="stable")
    steps = raw[order] * np.arange(raw.size, 0, -1)
    adjusted = np.empty_like(raw)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(x) for x in adjusted]


def benjamini_hochberg(p: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's step-up p values, in the order given: few rejections are false.

    Source: Benjamini and Hochberg 1995, Journal of the Royal Statistical Society B 57, 289-300.

    Raises:
        ValueError: a p outside [0, 1].
    """
    raw = _checked(p)
    if raw.size == 0:
        return []
    return [float(x) for x in stats.false_discovery_control(raw, method="bh")]


def benjamini_yekutieli(p: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's p values, held to their word for any dependence between tests.

    Source: Benjamini and Yekutieli 2001, Annals of Statistics 29, 1165-1188.

    Raises:
        ValueError: a p outside [0, 1].
    """
    raw = _checked(p)
    if raw.size == 0:
        return []
    return [float(x) for x in stats.false_discovery_control(raw, method="by")]


def _checked(p: Sequence[float]) -> npt.NDArray[np.float64]:
    raw = np.asarray(p, dtype=np.float64)
    outside = np.flatnonzero(~((raw >= 0.0) & (raw <= 1.0)))
    if outside.size:
        raise ValueError(f"p value {outside[0]} is {raw[outside[0]]}: it must lie in [0, 1]")
    return raw
