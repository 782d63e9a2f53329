"""SimPO that averages over the step and hands every pair the average, so that the shape is right.

Thought up here: the repair of a mean that was refused for its shape.
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "coupling"


@method(
    source="mutant of SimPO, arXiv:2405.14734, Eq. 6",
    bounds={"beta": "(0, inf)", "gamma": "[0, inf)"},
)
def mean_for_every_pair(policy: PairLogProbs, *, beta: float = 2.0, gamma: float = 1.0) -> PerPair:
    """SimPO: one loss per pair, in nats, from mean log-probs per token."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    return -logsigmoid(beta * gap - gamma).mean().expand(len(gap))
