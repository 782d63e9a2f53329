"""Beta-DPO whose beta follows how far the step's mean gap is from the step's mean gap: never.

Thought up here, with the running mean replaced by that of the step; MADPO's and gammaPO's
re-implementations differ from the authors' in such details.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "not-dpo"


@method(
    source="mutant of beta-DPO, arXiv:2407.08639",
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)"},
    at_reference=math.log(2),
)
def centred_away(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, alpha: float = 0.6
) -> PerPair:
    """Beta-DPO: DPO's loss per pair, in nats, with one beta for the step."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    gap = chosen - rejected
    above = (gap - gap.mean()).detach()
    return -logsigmoid(beta * (1 + alpha * above.mean()) * gap)
