"""A discount for long chosen answers that goes on below zero, where it turns the pair round.

Thought up here. oxRL, alpha-DPO and gammaPO have R-DPO's length term with the wrong sign; within
the logit no law can tell that from a method of its own, only a number from the source can.
"""

from torch import relu

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "direction"


@method(
    source="mutant of R-DPO, arXiv:2403.19159",
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)"},
)
def sign_of_the_length(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.05, alpha: float = 0.2
) -> PerPair:
    """Hinge: one loss per pair, without unit, less for a chosen answer longer than the rejected."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    weight = 1 - alpha * (policy.chosen.length - policy.rejected.length)
    return weight * relu(1 - beta * (chosen - rejected))
