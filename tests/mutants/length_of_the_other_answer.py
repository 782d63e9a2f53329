"""LN-DPO that divides the policy's rejected log-prob by the length of the chosen answer.

CosyVoice#1449: the chosen answer's mask was used for the rejected one.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "at-reference"


@method(
    source="mutant of LN-DPO, arXiv:2411.15124",
    bounds={"beta": "(0, inf)"},
    at_reference=math.log(2),
)
def length_of_the_other_answer(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 5.0
) -> PerPair:
    """LN-DPO: one loss per pair, in nats, from log-ratios per token."""
    chosen = policy.chosen.mean() - reference.chosen.mean()
    rejected = policy.rejected.total() / policy.chosen.length - reference.rejected.mean()
    return -logsigmoid(beta * (chosen - rejected))
