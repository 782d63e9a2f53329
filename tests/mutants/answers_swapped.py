"""LN-DPO of the rejected answer minus the chosen one: it learns the opposite of its labels.

Trap 18: a data set with its columns exchanged looks the same, and its curve falls as well.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "direction"


@method(
    source="mutant of LN-DPO, arXiv:2411.15124",
    bounds={"beta": "(0, inf)"},
    at_reference=math.log(2),
)
def answers_swapped(policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 5.0) -> PerPair:
    """LN-DPO: one loss per pair, in nats, from log-ratios per token."""
    chosen = policy.rejected.mean() - reference.rejected.mean()
    rejected = policy.chosen.mean() - reference.chosen.mean()
    return -logsigmoid(beta * (chosen - rejected))
