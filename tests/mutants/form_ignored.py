"""A hinge loss that is DPO's: the word that chooses between them is accepted and never read.

ms-swift#10167: a path of its own ignored `loss_type`, so that hinge and IPO trained the sigmoid.
"""

import math
from typing import Literal

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "not-dpo"


@method(
    source="mutant of hinge, arXiv:2309.06657",
    bounds={"beta": "(0, inf)"},
    at_reference=math.log(2),
)
def form_ignored(
    policy: PairLogProbs,
    reference: PairLogProbs,
    *,
    beta: float = 0.05,
    form: Literal["hinge", "sigmoid"] = "hinge",
) -> PerPair:
    """Hinge: one loss per pair, without unit, 0 beyond a reward gap of 1."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return -logsigmoid(beta * (chosen - rejected))
