"""AMaPO whose margin is not detached: half of the gradient works against the other half.

Thought up here; the authors' `scripts/amapo_trainer.py` detaches it.
"""

import torch
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "gradient-true"


@method(
    source="mutant of AMaPO, arXiv:2511.09385",
    bounds={"beta": "(0, inf)"},
    coupled=True,
    stop_gradient="the margin",
)
def margin_leaks(policy: PairLogProbs, *, beta: float = 2.0) -> PerPair:
    """AMaPO: one loss per pair, in nats, with a margin where the step does better."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    mean = gap.mean()
    spread = ((gap - mean).square().mean() + 1e-6).sqrt()
    exponent = ((mean - gap) / spread * mean).clamp_max(80.0)
    margin = torch.where(gap < mean, beta * exponent.exp(), exponent * 0)
    return -logsigmoid(beta * gap - margin)
