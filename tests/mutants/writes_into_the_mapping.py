"""BCO that puts its next running mean into the mapping it was given, and returns that mapping.

Thought up here; state goes in and comes out, and what went in is the caller's.
"""

import math
from typing import Any

import torch
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, State, method

CAUGHT_BY: str = "inputs-untouched"


@method(
    source="mutant of BCO, arXiv:2404.04656",
    bounds={"beta": "(0, inf)", "decay": "[0, 1)"},
    coupled=True,
    initial={"mean": 0.0},
    at_reference=2 * math.log(2),
    stop_gradient="the running mean",
)
def writes_into_the_mapping(
    policy: PairLogProbs,
    reference: PairLogProbs,
    state: State,
    *,
    beta: float = 0.1,
    decay: float = 0.9,
) -> tuple[PerPair, State]:
    """BCO: one loss per pair, in nats, from rewards beside their running mean; the next state."""
    memory: Any = state
    chosen = beta * (policy.chosen.total() - reference.chosen.total())
    rejected = beta * (policy.rejected.total() - reference.rejected.total())
    now = torch.cat((chosen, rejected)).detach().double().mean()
    memory["mean"] = decay * memory["mean"] + (1 - decay) * now
    shift = memory["mean"].to(chosen)
    return -logsigmoid(chosen - shift) - logsigmoid(shift - rejected), memory
