"""BCO whose running mean is kept in single precision.

Thought up here; a sum over a run's answers loses its last digits, and a checkpoint its sameness.
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
def memory_in_half_the_digits(
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
    now = torch.cat((chosen, rejected)).detach().float().mean()
    mean = decay * state["mean"].float() + (1 - decay) * now
    shift = mean.to(chosen)
    return -logsigmoid(chosen - shift) - logsigmoid(shift - rejected), {"mean": mean}
