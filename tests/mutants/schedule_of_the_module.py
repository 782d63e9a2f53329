"""DPO-Shift's schedule counted by the module: each evaluation brings its end nearer.

DPO-Shift has a linear schedule; the counter of calls for one of steps is thought up here.
"""

import itertools
import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "evaluation"

CALLS = itertools.count()


@method(
    source="mutant of DPO-Shift, arXiv:2502.07599",
    bounds={"beta": "(0, inf)", "horizon": "(0, inf)"},
    at_reference=math.log(2),
)
def schedule_of_the_module(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, horizon: float = 1e5
) -> PerPair:
    """DPO-Shift: one loss per pair, in nats, the rejected log-ratio times a falling factor."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    factor = 0.75 + 0.25 * math.exp(-next(CALLS) / horizon)
    return -logsigmoid(beta * (chosen - factor * rejected))
