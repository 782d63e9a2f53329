"""APO-zero, declared monotone at the reference alone, although it is everywhere.

Thought up here: with a weaker word than the truth a later mistake of sign would not be noticed.
"""

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "direction"


@method(
    source="mutant of APO-zero, arXiv:2408.06266, Eq. 7",
    bounds={"beta": "(0, inf)"},
    at_reference=1.0,
    direction="at_reference",
)
def direction_not_claimed(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1
) -> PerPair:
    """APO-zero: one loss per pair, without unit, between 0 and 2."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return (-beta * chosen).sigmoid() + (beta * rejected).sigmoid()
