"""SimPO with a minus sign too many in front of its logit.

Thought up here; the loss falls all the same, and the policy learns to prefer what is rejected.
"""

from torch.nn.functional import softplus

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "direction"


@method(
    source="mutant of SimPO, arXiv:2405.14734, Eq. 6",
    bounds={"beta": "(0, inf)", "gamma": "[0, inf)"},
)
def sign_of_the_logit(policy: PairLogProbs, *, beta: float = 2.0, gamma: float = 1.0) -> PerPair:
    """SimPO: one loss per pair, in nats, from mean log-probs per token."""
    return softplus(beta * (policy.chosen.mean() - policy.rejected.mean()) - gamma)
