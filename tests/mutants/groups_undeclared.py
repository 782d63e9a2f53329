"""A mean of neighbours two by two, not declared: wrong for every batch of an even size.

alpha-DPO's statistics of the micro-batch; a test of subsets that keep the groups would miss it.
"""

import torch
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "coupling"


@method(
    source="mutant of SimPO, arXiv:2405.14734, Eq. 6",
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)"},
    stop_gradient="the baseline",
)
def groups_undeclared(policy: PairLogProbs, *, beta: float = 2.0, alpha: float = 0.5) -> PerPair:
    """SimPO: one loss per pair, in nats, against the mean gap of its group."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    fixed = gap.detach()
    means = [group.mean().expand(len(group)) for group in fixed.split(2)]
    return -logsigmoid(beta * (gap - alpha * torch.cat(means)))
