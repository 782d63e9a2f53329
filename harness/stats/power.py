"""What could have been seen: detectable effects, and the seeds or prompts that they take."""

from __future__ import annotations

import bisect
import math
from collections.abc import Callable

import numpy as np
from scipy import optimize, special

from harness.stats.components import Components, expected_squares, variance_of_mean

MOST = 2**20  # seeds or prompts: beyond this the answer is that more of them do not help
FAR = 9.0  # noncentrality, and half the range of a normal variable, beyond which 1e-18 is left
NORMAL = np.linspace(-FAR, FAR, 2001)
WEIGHTS = np.exp(-0.5 * NORMAL**2) / np.exp(-0.5 * NORMAL**2).sum()


def t_quantile(df: float, level: float) -> float:
    """The half-width, in standard errors, of a two-sided t interval.

    Raises:
        ValueError: `level` outside (0, 1), or `df` not above 0.
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    if not df > 0.0:
        raise ValueError(f"degrees of freedom must be above 0, got {df}")
    return float(special.stdtrit(df, 0.5 + level / 2))


def power_of_t_test(noncentrality: float, df: float, *, level: float = 0.95) -> float:
    """Probability that a two-sided t test rejects, the true value being so many standard errors.

    Args:
        noncentrality: true value over its standard error; the sign does not matter.
        df: degrees of freedom of the standard error.
        level: one minus the size of the test.

    Raises:
        ValueError: `level` outside (0, 1), or `df` not above 0.
    """
    critical, shift = t_quantile(df, level), abs(noncentrality)
    if shift > FAR:
        # scipy's noncentral t ends in NaN far out. The mean over Z of P(chi2 < df ((Z + shift) /
        # critical)^2) is the same power, smooth here because Z + shift stays above 0.
        return float(WEIGHTS @ special.chdtr(df, df * ((NORMAL + shift) / critical) ** 2))
    same, other = special.nctdtr(df, shift, [critical, -critical])
    # The opposite tail is NaN where it is below 1e-14.
    return 1.0 - float(same) + float(np.nan_to_num(other))


def minimum_detectable_effect(
    standard_error: float, df: float, *, power: float = 0.8, level: float = 0.95
) -> float:
    """The least true value, in the unit of the standard error, found with probability `power`.

    It is 0 where `power` is no more than the size of the test.

    Raises:
        ValueError: a standard error that is negative or not finite, `level` or `power` outside
            (0, 1), or `df` not above 0.
    """
    if not 0.0 <= standard_error < math.inf:
        raise ValueError(f"a standard error is finite and not negative, got {standard_error}")
    if not 0.0 < power < 1.0:
        raise ValueError(f"power must lie between 0 and 1, got {power}")

    def excess(noncentrality: float) -> float:
        return power_of_t_test(noncentrality, df, level=level) - power

    if excess(0.0) >= 0.0:
        return 0.0
    above = 2.0 * t_quantile(df, level)
    while excess(above) < 0.0:
        above *= 2.0
    return standard_error * float(optimize.brentq(excess, 0.0, above, xtol=1e-12))


def design(components: Components, seeds: int, prompts: int) -> tuple[float, float]:
    """Standard error of a mean over so many seeds and prompts, and its degrees of freedom.

    With one seed both cover prompts only.

    Raises:
        ValueError: fewer than 1 seed or 2 prompts; or several seeds where the variance between
            runs is not known.
    """
    if seeds < 1 or prompts < 2:
        raise ValueError(f"a design has at least 1 seed and 2 prompts, got {seeds} x {prompts}")
    if seeds == 1:
        variance = (components.prompt + components.residual) / prompts
        return math.sqrt(variance), float(prompts - 1)
    variance, df = variance_of_mean(expected_squares(components, seeds, prompts))
    return math.sqrt(variance), df


def seeds_needed(
    effect: float,
    components: Components,
    *,
    prompts: int,
    power: float = 0.8,
    level: float = 0.95,
) -> int | None:
    """The fewest seeds, at least 2, with which `effect` is found on so many prompts.

    Args:
        effect: the true value to be found, in units of the scores; the sign does not matter.
        components: of the difference to be tested, as in `Estimate.components`.
        prompts: test prompts of each run.
        power: probability of finding it.
        level: one minus the size of the test.

    Returns:
        None where no number of seeds is enough, because these prompts differ too much.

    Raises:
        ValueError: no effect, or a variance between runs that is not known.
    """

    def smallest_seen(seeds: int) -> float:
        standard_error, df = design(components, seeds, prompts)
        return minimum_detectable_effect(standard_error, df, power=power, level=level)

    return _fewest(smallest_seen, effect)


def prompts_needed(
    effect: float,
    components: Components,
    *,
    seeds: int,
    power: float = 0.8,
    level: float = 0.95,
) -> int | None:
    """The fewest prompts, at least 2, on which `effect` is found with so many seeds.

    Args:
        effect: the true value to be found, in units of the scores; the sign does not matter.
        components: of the difference to be tested, as in `Estimate.components`.
        seeds: runs of each method; with 1 the finding is about prompts only.
        power: probability of finding it.
        level: one minus the size of the test.

    Returns:
        None where no number of prompts is enough, because runs differ too much.

    Raises:
        ValueError: no effect, or several seeds and a variance between runs that is not known.
    """

    def smallest_seen(prompts: int) -> float:
        standard_error, df = design(components, seeds, prompts)
        return minimum_detectable_effect(standard_error, df, power=power, level=level)

    return _fewest(smallest_seen, effect)


def _fewest(smallest_seen: Callable[[int], float], effect: float) -> int | None:
    if effect == 0.0 or not math.isfinite(effect):
        raise ValueError(f"an effect to be found is finite and not 0, got {effect}")

    def enough(count: int) -> bool:
        return smallest_seen(count) <= abs(effect)

    if not enough(MOST):
        return None
    return 2 + bisect.bisect_left(range(2, MOST), True, key=enough)
