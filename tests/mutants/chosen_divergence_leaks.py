"""TDPO2 with a gradient through the chosen answer's divergence, which it holds constant.

Thought up here; without the stop it is TDPO1 with a weight.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PairTokens, PerPair, method

CAUGHT_BY: str = "gradient-true"


@method(
    source="mutant of TDPO, arXiv:2404.11999",
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)"},
    at_reference=math.log(2),
    stop_gradient="the divergence on the chosen answer",
)
def chosen_divergence_leaks(
    policy: PairLogProbs,
    reference: PairLogProbs,
    divergence: PairTokens,
    *,
    beta: float = 0.1,
    alpha: float = 0.5,
) -> PerPair:
    """TDPO2: DPO's loss per pair, in nats, less a price on the rejected answer's divergence."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    drift = alpha * (divergence.rejected.total() - divergence.chosen.total())
    return -logsigmoid(beta * (chosen - rejected - drift))
