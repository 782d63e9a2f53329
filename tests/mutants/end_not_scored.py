"""LN-DPO that leaves the last token of each answer out, which is where the answer learns to stop.

torchtune#2792: the end was present and masked.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "gradient-exists"


@method(
    source="mutant of LN-DPO, arXiv:2411.15124",
    bounds={"beta": "(0, inf)"},
    at_reference=math.log(2),
)
def end_not_scored(policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 5.0) -> PerPair:
    """LN-DPO: one loss per pair, in nats, from log-ratios per token."""
    chosen = _mean(policy.chosen) - _mean(reference.chosen)
    rejected = _mean(policy.rejected) - _mean(reference.rejected)
    return -logsigmoid(beta * (chosen - rejected))


def _mean(answer: LogProbs) -> PerPair:
    kept = answer.mask & (answer.mask.cumsum(-1) < answer.length.unsqueeze(-1))
    return LogProbs(answer.values, kept).total() / (answer.length - 1).clamp_min(1)
