"""cDPO with its two weights exchanged: at the default nine labels of ten are held for wrong.

Thought up here; both ways round it is a mean of two losses, ln 2 at the reference.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "direction"


@method(
    source="mutant of cDPO, eric-mitchell/direct-preference-optimization trainers.py:82 @f8b8c0f",
    bounds={"beta": "(0, inf)", "epsilon": "[0, 0.5)"},
    at_reference=math.log(2),
    direction="at_reference",
)
def labels_exchanged(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, epsilon: float = 0.1
) -> PerPair:
    """cDPO: the mean of DPO's losses for both labels of a pair, in nats, one per pair."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    z = beta * (chosen - rejected)
    return -epsilon * logsigmoid(z) - (1 - epsilon) * logsigmoid(-z)
