"""Robust DPO whose default lies outside of its own bounds: at 1/2 it divides by zero.

Thought up here: a slip of the pen, and the bounds are right.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "loads"


@method(
    source="mutant of robust DPO, arXiv:2403.00409",
    bounds={"beta": "(0, inf)", "epsilon": "[0, 0.5)"},
    at_reference=math.log(2),
)
def half_of_labels_wrong(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, epsilon: float = 0.5
) -> PerPair:
    """Robust DPO: one loss per pair, in nats, unbiased under labels of which a share is wrong."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    z = beta * (chosen - rejected)
    return (epsilon * logsigmoid(-z) - (1 - epsilon) * logsigmoid(z)) / (1 - 2 * epsilon)
