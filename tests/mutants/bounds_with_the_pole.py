"""Robust DPO whose bounds let epsilon be 1/2, where the loss divides by zero.

Thought up here: a round bracket for a square one.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "finite"


@method(
    source="mutant of robust DPO, arXiv:2403.00409",
    bounds={"beta": "(0, inf)", "epsilon": "[0, 0.5]"},
    at_reference=math.log(2),
)
def bounds_with_the_pole(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, epsilon: float = 0.1
) -> PerPair:
    """Robust DPO: one loss per pair, in nats, unbiased under labels of which a share is wrong."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    z = beta * (chosen - rejected)
    losses = epsilon * logsigmoid(-z) - (1 - epsilon) * logsigmoid(z)
    return losses / losses.new_tensor(1 - 2 * epsilon)
