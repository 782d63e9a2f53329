"""LN-DPO that keeps the reference's means, as they never change, by the shape of the batch.

Trap 29, a stale cache; TRL 1.16 returned another ld_alpha's sums from one.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "repeatable"

KEPT: dict[tuple[int, ...], PerPair] = {}


@method(
    source="mutant of LN-DPO, arXiv:2411.15124",
    bounds={"beta": "(0, inf)"},
    at_reference=math.log(2),
)
def cached_by_shape(policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 5.0) -> PerPair:
    """LN-DPO: one loss per pair, in nats, from log-ratios per token."""
    key = (*reference.chosen.mask.shape, *reference.rejected.mask.shape)
    theirs = KEPT.setdefault(key, reference.chosen.mean() - reference.rejected.mean())
    gap = policy.chosen.mean() - policy.rejected.mean()
    return -logsigmoid(beta * (gap - theirs.to(gap)))
