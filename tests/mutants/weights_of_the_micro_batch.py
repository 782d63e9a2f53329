"""Margins as weights whose mean is one, over the pairs that are in memory at the same time.

Thought up here, after trl#2628: another number of accumulation steps, another gradient.
"""

import torch
from torch import relu

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "micro-batches"


@method(source="mutant of MADPO, arXiv:2510.05342", bounds={"beta": "(0, inf)"})
def weights_of_the_micro_batch(
    policy: PairLogProbs, reference: PairLogProbs, margin: PerPair, *, beta: float = 0.05
) -> PerPair:
    """A hinge loss per pair, without unit, times how sure the reward model is of the label."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    weight = torch.sigmoid(margin.clamp(-10.0, 10.0))
    return weight / weight.mean() * relu(1 - beta * (chosen - rejected))
