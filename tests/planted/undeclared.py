"""A planted method that centres its gaps over the step and does not declare it."""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(source="planted: coupled without saying so")
def undeclared(policy: PairLogProbs) -> PerPair:
    """SimPO against the mean gap of the step."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    return -logsigmoid(gap - gap.mean().detach())
