"""Proportions and clusters: shares of failures, sizes of effects, prompts that belong together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
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


def clustered_standard_error(values: npt.ArrayLike, clusters: Sequence[str]) -> float:
    """Standard error of the mean of one run's values, where prompts of a cluster go together.

    Of clusters of one it is the usual one but for its divisor, n and not n - 1.

    Source: Miller 2024, Adding Error Bars to Evals, arXiv:2411.00640, equation 4.

    Raises:
        ValueError: no values, one that is not finite, or clusters of more or fewer.
    """
    cells = np.asarray(values, dtype=np.float64).ravel()
    if not cells.size or cells.size != len(clusters) or not np.isfinite(cells).all():
        raise ValueError(f"expected finite values, got {cells.size} in {len(clusters)} clusters")
    _, at = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    sums = np.bincount(at, weights=cells - cells.mean())
    return float(np.sqrt((sums**2).sum())) / cells.size
