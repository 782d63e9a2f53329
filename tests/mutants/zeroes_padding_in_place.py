"""LN-DPO that writes zeros over the padding of the tensors it was given, before it sums them.

Thought up here; the reference's numbers are a cache that the other methods read too.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "inputs-untouched"


@method(
    source="mutant of LN-DPO, arXiv:2411.15124",
    bounds={"beta": "(0, inf)"},
    at_reference=math.log(2),
)
def zeroes_padding_in_place(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 5.0
) -> PerPair:
    """LN-DPO: one loss per pair, in nats, from log-ratios per token."""
    chosen = policy.chosen.mean() - _mean(reference.chosen)
    rejected = policy.rejected.mean() - _mean(reference.rejected)
    return -logsigmoid(beta * (chosen - rejected))


def _mean(answer: LogProbs) -> PerPair:
    answer.values[~answer.mask] = 0.0
    return answer.mean()
