"""cDPO that takes a share of wrong labels and leaves it at that.

TRL's `sigmoid` accepts label_smoothing and ignores it, and so did its fused path for robust DPO.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "settings-used"


@method(
    source="mutant of cDPO, eric-mitchell/direct-preference-optimization trainers.py:82 @f8b8c0f",
    bounds={"beta": "(0, inf)", "epsilon": "[0, 0.5)"},
    at_reference=math.log(2),
)
def smoothing_ignored(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, epsilon: float = 0.1
) -> PerPair:
    """cDPO: the mean of DPO's losses for both labels of a pair, in nats, one per pair."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return -logsigmoid(beta * (chosen - rejected))
