"""AdaDPO whose coefficient is not detached, though it is said to be.

Thought up here; the stop-gradient is what makes the two probabilities' gradients equal.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "gradient-true"


@method(
    source="mutant of AdaDPO, arXiv:2605.28440",
    bounds={"beta": "(0, inf)", "ceiling": "(0, inf)"},
    at_reference=math.log(2),
    stop_gradient="the coefficient",
)
def coefficient_leaks(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, ceiling: float = 2.0
) -> PerPair:
    """AdaDPO: DPO's loss per pair, in nats, the chosen log-ratio times a ratio of probabilities."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    ratio = policy.chosen.mean() - policy.rejected.mean()
    coefficient = ratio.clamp_max(math.log(ceiling)).exp()
    return -logsigmoid(beta * (coefficient * chosen - rejected))
