"""Beta-DPO's choice of pairs, drawn from torch's global generator: no run can be repeated.

beta-DPO, `trainers.py`: `torch.multinomial`, and each rank samples a mask of its own.
"""

import math

import torch
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "repeatable"


@method(
    source="mutant of beta-DPO, arXiv:2407.08639",
    bounds={"beta": "(0, inf)", "rho": "(0, 1]"},
    coupled=True,
    at_reference=math.log(2),
)
def draws_from_the_global_generator(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, rho: float = 0.8
) -> PerPair:
    """DPO's loss per pair, in nats, for pairs near the step's average gap, and 0 for the rest."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    gap = chosen - rejected
    fixed = gap.detach()
    kept = torch.multinomial(
        torch.exp(-(fixed - fixed.mean()).square().clamp_max(50.0)),
        max(1, int(rho * len(gap))),
        replacement=False,
    )
    weight = torch.zeros_like(gap).index_fill(0, kept, len(gap) / len(kept))
    return -weight * logsigmoid(beta * gap)
