"""BCO that keeps a running mean and compares its rewards with 0 all the same.

Thought up here; TRL's `bco_pair` has no shift, and its trainer for single answers has one.
"""

import math

import torch
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, State, method

CAUGHT_BY: str = "reads-used"


@method(
    source="mutant of BCO, arXiv:2404.04656",
    bounds={"beta": "(0, inf)", "decay": "[0, 1)"},
    initial={"mean": 0.0},
    at_reference=2 * math.log(2),
)
def memory_not_used(
    policy: PairLogProbs,
    reference: PairLogProbs,
    state: State,
    *,
    beta: float = 0.1,
    decay: float = 0.9,
) -> tuple[PerPair, State]:
    """BCO: one loss per pair, in nats, from rewards beside their running mean; the next state."""
    chosen = beta * (policy.chosen.total() - reference.chosen.total())
    rejected = beta * (policy.rejected.total() - reference.rejected.total())
    now = torch.cat((chosen, rejected)).detach().double().mean()
    mean = decay * state["mean"] + (1 - decay) * now
    return -logsigmoid(chosen) - logsigmoid(-rejected), {"mean": mean}
