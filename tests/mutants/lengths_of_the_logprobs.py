"""SimPO that takes log-probs of exactly 0 for padding.

HALOs, `trainers.py:185`, counts log-ratios like that; a sure token's log-prob is 0 in fp32 too.
"""

from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "lengths"


@method(
    source="mutant of SimPO, arXiv:2405.14734, Eq. 6",
    bounds={"beta": "(0, inf)", "gamma": "[0, inf)"},
)
def lengths_of_the_logprobs(
    policy: PairLogProbs, *, beta: float = 2.0, gamma: float = 1.0
) -> PerPair:
    """SimPO: one loss per pair, in nats, from mean log-probs per token."""
    return -logsigmoid(beta * (_mean(policy.chosen) - _mean(policy.rejected)) - gamma)


def _mean(answer: LogProbs) -> PerPair:
    length = (answer.values.masked_fill(~answer.mask, 0.0) != 0).sum(-1)
    return answer.total() / length.clamp_min(1)
