"""SimPO that shifts the mask by one, although log-probs and mask come aligned.

The shift of labels is done where log-probs are made; OpenRLHF#235 and torchtune#2792 are of the
same family of masks that are off.
"""

from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "padding"


@method(
    source="mutant of SimPO, arXiv:2405.14734, Eq. 6",
    bounds={"beta": "(0, inf)", "gamma": "[0, inf)"},
)
def shifted_twice(policy: PairLogProbs, *, beta: float = 2.0, gamma: float = 1.0) -> PerPair:
    """SimPO: one loss per pair, in nats, from mean log-probs per token."""
    return -logsigmoid(beta * (_mean(policy.chosen) - _mean(policy.rejected)) - gamma)


def _mean(answer: LogProbs) -> PerPair:
    shifted = LogProbs(answer.values[:, :-1], answer.mask[:, 1:])
    return shifted.total() / shifted.length.clamp_min(1)
