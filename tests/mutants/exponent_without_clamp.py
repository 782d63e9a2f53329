"""f-DPO's forward KL without a clamp of its exponent: infinity minus infinity.

alecwangcq/f-divergence-dpo, `trainers.py`, clamps no exponent; TRL clamps that of another form.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "finite"


@method(
    source="mutant of f-DPO, arXiv:2309.16240",
    bounds={"beta": "(0, inf)"},
    at_reference=math.log(2),
)
def exponent_without_clamp(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1
) -> PerPair:
    """f-DPO with the forward KL: one loss per pair, in nats."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return -logsigmoid(beta * ((-rejected).exp() - (-chosen).exp()))
