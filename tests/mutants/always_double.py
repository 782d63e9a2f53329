"""A loss in double precision that is never brought back to the precision of its inputs.

Thought up here: one weight in fp64 is enough.
"""

import torch
from torch import relu

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "shape"


@method(source="mutant of MADPO, arXiv:2510.05342", bounds={"beta": "(0, inf)", "gain": "(0, inf)"})
def always_double(
    policy: PairLogProbs,
    reference: PairLogProbs,
    margin: PerPair,
    *,
    beta: float = 0.05,
    gain: float = 1.0,
) -> PerPair:
    """A hinge loss per pair, without unit, times how sure the reward model is of the label."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    weight = torch.sigmoid(gain * margin.double())
    return weight * relu(1 - beta * (chosen - rejected))
