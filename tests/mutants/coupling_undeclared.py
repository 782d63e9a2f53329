"""AMaPO's margin without a word that it is made of the whole step.

Trap 20: the engine then splits the step, and each micro-batch has statistics of its own.
"""

import torch
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "coupling"


@method(
    source="mutant of AMaPO, arXiv:2511.09385",
    bounds={"beta": "(0, inf)"},
    stop_gradient="the margin",
)
def coupling_undeclared(policy: PairLogProbs, *, beta: float = 2.0) -> PerPair:
    """AMaPO: one loss per pair, in nats, with a margin where the step does better."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    fixed = gap.detach()
    mean = fixed.mean().clamp(fixed.min(), fixed.max())
    spread = ((fixed - mean).square().mean() + 1e-6).sqrt()
    exponent = ((mean - fixed) / spread * mean).clamp_max(80.0)
    margin = torch.where(fixed < mean, beta * exponent.exp(), exponent * 0)
    return -logsigmoid(beta * gap - margin)
