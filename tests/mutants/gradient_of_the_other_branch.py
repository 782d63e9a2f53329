"""Chi-PO with an exponential in a branch of `where` that is not taken: its gradient is NaN.

Thought up here: infinity times the 0 of the branch, as anyone meets who clamps with `where`.
"""

import math

import torch
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "finite"


@method(
    source="mutant of chi-PO, arXiv:2407.13399",
    bounds={"beta": "(0, inf)"},
    at_reference=math.log(2),
)
def gradient_of_the_other_branch(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.05
) -> PerPair:
    """Chi-PO: one loss per pair, in nats, of log-ratios plus ratios."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return -logsigmoid(beta * (_link(chosen) - _link(rejected)))


def _link(h: PerPair) -> PerPair:
    return torch.where(h > 50, h + math.exp(50), h + h.exp())
