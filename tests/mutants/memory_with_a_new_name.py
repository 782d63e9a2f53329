"""BCO whose next state has a name that its initial state has not.

Thought up here; a checkpoint of the first step then fits no later one.
"""

import math

import torch
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, State, method

CAUGHT_BY: str = "state"


@method(
    source="mutant of BCO, arXiv:2404.04656",
    bounds={"beta": "(0, inf)", "decay": "[0, 1)"},
    coupled=True,
    initial={"mean": 0.0},
    at_reference=2 * math.log(2),
    stop_gradient="the running mean",
)
def memory_with_a_new_name(
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
    shift = mean.to(chosen)
    losses = -logsigmoid(chosen - shift) - logsigmoid(shift - rejected)
    return losses, {"mean": mean, "last": now}
