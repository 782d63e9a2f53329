"""LD-DPO that discounts the tail of the policy's log-probs and not of the reference's.

LLaMA-Factory's LD-DPO.
"""

import math

import torch
from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "at-reference"


@method(
    source="mutant of LD-DPO, arXiv:2409.06411",
    bounds={"beta": "(0, inf)", "alpha": "[0, 1]"},
    at_reference=math.log(2),
)
def tail_of_the_policy_alone(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, alpha: float = 0.5
) -> PerPair:
    """LD-DPO: DPO's loss per pair, in nats, with a discount on the longer answer's tail."""
    shared = torch.minimum(policy.chosen.length, policy.rejected.length).unsqueeze(-1)

    def discounted(answer: LogProbs) -> PerPair:
        tail = answer.mask & (answer.mask.cumsum(-1) > shared)
        return answer.total() - (1 - alpha) * LogProbs(answer.values, tail).total()

    chosen = discounted(policy.chosen) - reference.chosen.total()
    rejected = discounted(policy.rejected) - reference.rejected.total()
    return -logsigmoid(beta * (chosen - rejected))
