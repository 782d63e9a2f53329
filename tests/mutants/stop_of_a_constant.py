"""MADPO's weight declared as a stop-gradient, although the margin has none to stop.

Thought up here: with such a word a leak in the rest of the loss would be taken for intended.
"""

import torch
from torch import relu

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "gradient-true"


@method(
    source="mutant of MADPO, arXiv:2510.05342",
    bounds={"beta": "(0, inf)"},
    stop_gradient="the weight",
)
def stop_of_a_constant(
    policy: PairLogProbs, reference: PairLogProbs, margin: PerPair, *, beta: float = 0.05
) -> PerPair:
    """A hinge loss per pair, without unit, times how sure the reward model is of the label."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return torch.sigmoid(margin.detach()) * relu(1 - beta * (chosen - rejected))
