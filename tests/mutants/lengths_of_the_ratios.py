"""LN-DPO whose lengths are the numbers of log-ratios that are not zero.

HALOs, `trainers.py:185`: 0/0 where the policy is the reference, and wrong wherever one token's
log-ratio is exactly 0. Here the first of the two was mended.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "lengths"


@method(
    source="mutant of LN-DPO, arXiv:2411.15124; ContextualAI/HALOs trainers.py:185 @4831988",
    bounds={"beta": "(0, inf)"},
    at_reference=math.log(2),
)
def lengths_of_the_ratios(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 5.0
) -> PerPair:
    """LN-DPO: one loss per pair, in nats, from log-ratios per token."""
    chosen = _mean(policy.chosen, reference.chosen)
    rejected = _mean(policy.rejected, reference.rejected)
    return -logsigmoid(beta * (chosen - rejected))


def _mean(policy: LogProbs, reference: LogProbs) -> PerPair:
    apart = (policy.values != reference.values) & policy.mask
    return (policy.total() - reference.total()) / apart.sum(-1).clamp_min(1)
