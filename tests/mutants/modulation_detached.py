"""DiscoPOP with its modulation held constant, which the authors let the gradient through.

Thought up here; a weight looks like something to detach.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "gradient-true"


@method(
    source="mutant of DiscoPOP, arXiv:2406.08414, Eq. 5",
    bounds={"beta": "(0, inf)", "tau": "(0, inf)"},
    at_reference=math.log(2) / 2 + 1 / 2,
)
def modulation_detached(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.05, tau: float = 0.05
) -> PerPair:
    """DiscoPOP: one loss per pair, between DPO's and an exponential one."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    x = beta * (chosen - rejected)
    m = (x / tau).sigmoid().detach()
    return -(1 - m) * logsigmoid(x) + m * (-x).clamp_max(80.0).exp()
