"""LD-DPO whose tail is cut off whatever its weight is set to.

TRL's path through Liger dropped ld_alpha; a cache of TRL 1.16 returned sums of another ld_alpha.
"""

import math

import torch
from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "settings-used"


@method(
    source="mutant of LD-DPO, arXiv:2409.06411",
    bounds={"beta": "(0, inf)", "alpha": "[0, 1]"},
    at_reference=math.log(2),
)
def discount_ignored(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, alpha: float = 0.5
) -> PerPair:
    """LD-DPO: DPO's loss per pair, in nats, with a discount on the longer answer's tail."""
    shared = torch.minimum(policy.chosen.length, policy.rejected.length).unsqueeze(-1)

    def discounted(answer: LogProbs) -> PerPair:
        tail = answer.mask & (answer.mask.cumsum(-1) > shared)
        return LogProbs(answer.values, answer.mask & ~tail).total()

    chosen = discounted(policy.chosen) - discounted(reference.chosen)
    rejected = discounted(policy.rejected) - discounted(reference.rejected)
    return -logsigmoid(beta * (chosen - rejected))
