"""SimPO against the mean gap of the step, where it has pairs enough for a mean; not declared.

Thought up here, after the steps of few pairs that turned alpha-DPO's and AMaPO's statistics to NaN.
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "coupling"


@method(
    source="mutant of SimPO, arXiv:2405.14734, Eq. 6",
    bounds={"beta": "(0, inf)", "gamma": "[0, inf)"},
)
def coupling_of_large_steps(
    policy: PairLogProbs, *, beta: float = 2.0, gamma: float = 1.0
) -> PerPair:
    """SimPO: one loss per pair, in nats, from mean log-probs per token."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    if len(gap) >= 16:
        gap = gap - gap.detach().mean()
    return -logsigmoid(beta * gap - gamma)
