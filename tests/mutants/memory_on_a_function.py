"""The weight of the rejected answer falls with each call, counted on an attribute of a function.

DPO-Shift has such a schedule; thought up here is the counter, which every evaluation moves too.
"""

import math
from typing import Any

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "repeatable"


@method(
    source="mutant of DPO-Shift, arXiv:2502.07599",
    bounds={"beta": "(0, inf)", "lambda_min": "[0.5, 1]"},
    at_reference=math.log(2),
)
def memory_on_a_function(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, lambda_min: float = 0.5
) -> PerPair:
    """DPO-Shift: one loss per pair, in nats, the rejected log-ratio times a falling factor."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return -logsigmoid(beta * (chosen - _factor(lambda_min) * rejected))


def _factor(least: float) -> float:
    memory: Any = _factor
    memory.calls = getattr(memory, "calls", 0) + 1
    return max(least, 0.95 - memory.calls / 1000)
