"""A baseline that is the running mean over the pairs before, in the order in which they stand.

Thought up here; it is declared to be coupled, and the order of a step still means nothing.
"""

import torch
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "order"


@method(
    source="mutant of SimPO, arXiv:2405.14734, Eq. 6",
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)"},
    coupled=True,
    stop_gradient="the baseline",
)
def neighbours_in_sequence(
    policy: PairLogProbs, *, beta: float = 2.0, alpha: float = 0.5
) -> PerPair:
    """SimPO: one loss per pair, in nats, against the mean gap of the pairs up to this one."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    fixed = gap.detach()
    before = fixed.cumsum(0) / torch.arange(1, len(gap) + 1, device=gap.device)
    return -logsigmoid(beta * (gap - alpha * before))
