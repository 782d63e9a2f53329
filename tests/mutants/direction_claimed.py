"""APO-down with nothing said of its direction, so that it claims a likelier chosen answer is good.

Thought up here; it pushes chosen answers down as soon as the rejected ones have fallen.
"""

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "direction"


@method(
    source="mutant of APO-down, arXiv:2408.06266, Eq. 8",
    bounds={"beta": "(0, inf)"},
    at_reference=1.0,
)
def direction_claimed(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1
) -> PerPair:
    """APO-down: one loss per pair, without unit, between 0 and 2."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return (beta * chosen).sigmoid() + (-beta * (chosen - rejected)).sigmoid()
