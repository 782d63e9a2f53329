"""A hinge loss that returns its implicit rewards beside the losses, for a trainer's log.

The loss functions of the original DPO repository and of TRL return such threes.
"""

from torch import relu

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "shape"


@method(source="mutant of hinge, arXiv:2309.06657", bounds={"beta": "(0, inf)"}, at_reference=1.0)
def rewards_returned_too(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.05
) -> tuple[PerPair, PerPair, PerPair]:
    """Hinge: one loss per pair, without unit, and the rewards of both answers."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return relu(1 - beta * (chosen - rejected)), beta * chosen, beta * rejected
