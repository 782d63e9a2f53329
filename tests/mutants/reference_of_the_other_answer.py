"""APO-zero that holds the chosen answer against the reference's log-prob of the rejected one.

Thought up here; its gradient points the right way on every input.
"""

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "at-reference"


@method(
    source="mutant of APO-zero, arXiv:2408.06266, Eq. 7",
    bounds={"beta": "(0, inf)"},
    at_reference=1.0,
)
def reference_of_the_other_answer(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1
) -> PerPair:
    """APO-zero: one loss per pair, without unit, between 0 and 2."""
    chosen = policy.chosen.total() - reference.rejected.total()
    rejected = policy.rejected.total() - reference.chosen.total()
    return (-beta * chosen).sigmoid() + (beta * rejected).sigmoid()
