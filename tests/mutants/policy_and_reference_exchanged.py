"""A hinge loss of the reference's log-probs minus the policy's: what is learnt is unlearnt.

Thought up here; at the reference its value is right, to the last digit.
"""

from torch import relu

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "direction"


@method(source="mutant of hinge, arXiv:2309.06657", bounds={"beta": "(0, inf)"}, at_reference=1.0)
def policy_and_reference_exchanged(
    reference: PairLogProbs, policy: PairLogProbs, *, beta: float = 0.05
) -> PerPair:
    """Hinge: one loss per pair, without unit, 0 beyond a reward gap of 1."""
    chosen = reference.chosen.total() - policy.chosen.total()
    rejected = reference.rejected.total() - policy.rejected.total()
    return relu(1 - beta * (chosen - rejected))
