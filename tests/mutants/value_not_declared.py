"""A hinge loss that is exactly 1 in its first step and does not say so.

Trap 9: a run whose padding or packing is wrong, as open-instruct#1900's was, then goes on.
"""

from torch import relu

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "at-reference"


@method(source="mutant of hinge, arXiv:2309.06657", bounds={"beta": "(0, inf)"})
def value_not_declared(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.05
) -> PerPair:
    """Hinge: one loss per pair, without unit, 0 beyond a reward gap of 1."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return relu(1 - beta * (chosen - rejected))
