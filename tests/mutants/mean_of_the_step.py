"""SimPO that averages over the pairs itself: the mean of such means is another number.

beta-DPO, `trainers.py`: every rank takes the mean of what it has kept, and these are averaged.
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "shape"


@method(
    source="mutant of SimPO, arXiv:2405.14734, Eq. 6",
    bounds={"beta": "(0, inf)", "gamma": "[0, inf)"},
)
def mean_of_the_step(policy: PairLogProbs, *, beta: float = 2.0, gamma: float = 1.0) -> PerPair:
    """SimPO: the loss of the step, in nats, from mean log-probs per token."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    return -logsigmoid(beta * gap - gamma).mean()
