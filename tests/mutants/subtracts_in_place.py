"""A hinge loss that saves memory: the log-ratios take the place of the reference's log-probs.

Thought up here; the right losses come out, once.
"""

from torch import relu

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "inputs-untouched"


@method(source="mutant of hinge, arXiv:2309.06657", bounds={"beta": "(0, inf)"}, at_reference=1.0)
def subtracts_in_place(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.05
) -> PerPair:
    """Hinge: one loss per pair, without unit, 0 beyond a reward gap of 1."""
    chosen = _ratio(policy.chosen, reference.chosen)
    rejected = _ratio(policy.rejected, reference.rejected)
    return relu(1 - beta * (chosen - rejected))


def _ratio(policy: LogProbs, reference: LogProbs) -> PerPair:
    ours, theirs = policy.total(), reference.total()
    reference.values.sub_(policy.values.detach()).neg_()
    return ours - theirs
