"""SimPO whose lengths are sums of the mask in the precision of the log-probs.

Thought up here; bf16 counts to 256 and then in steps of two, later of four.
"""

from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "bf16"


@method(
    source="mutant of SimPO, arXiv:2405.14734, Eq. 6",
    bounds={"beta": "(0, inf)", "gamma": "[0, inf)"},
)
def lengths_in_half_precision(
    policy: PairLogProbs, *, beta: float = 2.0, gamma: float = 1.0
) -> PerPair:
    """SimPO: one loss per pair, in nats, from mean log-probs per token."""
    return -logsigmoid(beta * (_mean(policy.chosen) - _mean(policy.rejected)) - gamma)


def _mean(answer: LogProbs) -> PerPair:
    return answer.total() / answer.mask.to(answer.values.dtype).sum(-1)
