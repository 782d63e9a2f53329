"""A hinge loss whose log-ratios are rounded to the precision of the log-probs, token by token.

Thought up here: the difference of two numbers that are nearly equal has few digits left.
"""

from torch import relu

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "bf16"


@method(source="mutant of hinge, arXiv:2309.06657", bounds={"beta": "(0, inf)"}, at_reference=1.0)
def ratios_in_half_precision(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.05
) -> PerPair:
    """Hinge: one loss per pair, without unit, 0 beyond a reward gap of 1."""
    chosen = _ratio(policy.chosen, reference.chosen)
    rejected = _ratio(policy.rejected, reference.rejected)
    return relu(1 - beta * (chosen - rejected))


def _ratio(policy: LogProbs, reference: LogProbs) -> PerPair:
    return LogProbs(policy.values - reference.values, policy.mask).total()
