"""MallowsPO whose dispersion is the mean entropy over all columns.

Thought up here; haoxian-chen/MallowsPO takes it per token.
"""

import math

import torch
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PairTokens, PerPair, method

CAUGHT_BY: str = "padding"


@method(
    source="mutant of MallowsPO, arXiv:2405.14953",
    bounds={"beta": "(0, inf)", "c": "(0, inf)"},
    at_reference=math.log(2),
)
def entropy_of_padding(
    policy: PairLogProbs,
    reference: PairLogProbs,
    entropy: PairTokens,
    *,
    beta: float = 0.1,
    c: float = 0.29,
) -> PerPair:
    """MallowsPO: DPO's loss per pair, in nats, the gap weighted by how sure the reference is."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    both = torch.cat((entropy.chosen.values, entropy.rejected.values), dim=1)
    phi = -c * both.mean(-1).clamp_min(1e-6).log()
    return -logsigmoid(beta * phi.to(chosen) * (chosen - rejected))
