"""A copy of SimPO's file in which the function kept its old name.

Thought up here: the first step of every new method is to copy an old one.
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "loads"


@method(
    source="mutant of SimPO, arXiv:2405.14734, Eq. 6",
    bounds={"beta": "(0, inf)", "gamma": "[0, inf)"},
)
def simpo(policy: PairLogProbs, *, beta: float = 2.0, gamma: float = 1.0) -> PerPair:
    """SimPO: one loss per pair, in nats, from mean log-probs per token."""
    return -logsigmoid(beta * (policy.chosen.mean() - policy.rejected.mean()) - gamma)
