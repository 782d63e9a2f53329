"""AMaPO with the unbiased deviation of however many pairs there are: of one it is NaN.

AMaPO, `scripts/amapo_trainer.py`, divides by it as it is.
"""

import torch
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "finite"


@method(
    source="mutant of AMaPO, arXiv:2511.09385",
    bounds={"beta": "(0, inf)"},
    coupled=True,
    stop_gradient="the margin",
)
def spread_of_one_pair(policy: PairLogProbs, *, beta: float = 2.0) -> PerPair:
    """AMaPO: one loss per pair, in nats, with a margin where the step does better."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    fixed = gap.detach()
    mean, variance = fixed.mean(), (fixed - fixed.mean()).square().sum() / (len(fixed) - 1)
    exponent = ((mean - fixed) / (variance.sqrt() + 1e-3) * mean).clamp_max(80.0)
    margin = torch.where(fixed < mean, beta * exponent.exp(), exponent * 0)
    return -logsigmoid(beta * gap - margin)
