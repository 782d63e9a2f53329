"""LD-DPO that counts tokens by the columns they stand in: the tail moves when padding is left.

Thought up here, with `arange` over the columns; open-instruct#1466 was such a mistake of offsets.
"""

import math

import torch
from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "padding"


@method(
    source="mutant of LD-DPO, arXiv:2409.06411",
    bounds={"beta": "(0, inf)", "alpha": "[0, 1]"},
    at_reference=math.log(2),
)
def columns_for_positions(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, alpha: float = 0.5
) -> PerPair:
    """LD-DPO: DPO's loss per pair, in nats, with a discount on the longer answer's tail."""
    shared = torch.minimum(policy.chosen.length, policy.rejected.length).unsqueeze(-1)

    def discounted(answer: LogProbs) -> PerPair:
        column = torch.arange(answer.mask.shape[1], device=answer.mask.device)
        tail = answer.mask & (column >= shared)
        return answer.total() - (1 - alpha) * LogProbs(answer.values, tail).total()

    chosen = discounted(policy.chosen) - discounted(reference.chosen)
    rejected = discounted(policy.rejected) - discounted(reference.rejected)
    return -logsigmoid(beta * (chosen - rejected))
