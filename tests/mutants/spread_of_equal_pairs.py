"""A z-score that remembers the step of one pair and forgets that of equal ones: 0/0.

Thought up here, after the z-scores of alpha-DPO and beta-DPO, which have both faults.
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "finite"


@method(
    source="mutant of SimPO, arXiv:2405.14734, Eq. 6",
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)"},
    coupled=True,
    stop_gradient="the target",
)
def spread_of_equal_pairs(
    policy: PairLogProbs, *, beta: float = 2.0, alpha: float = 0.1
) -> PerPair:
    """SimPO: one loss per pair, in nats, with a larger target for pairs ahead of the step."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    if len(gap) < 2:
        return -logsigmoid(beta * gap)
    fixed = gap.detach()
    z = (fixed - fixed.mean()) / fixed.std()
    return -logsigmoid(beta * (gap - alpha * z))
