"""BCO whose next running mean is a Python number and not a tensor.

Thought up here; `.item()` is how trainers keep their averages.
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
def memory_as_numbers(
    policy: PairLogProbs,
    reference: PairLogProbs,
    state: State,
    *,
    beta: float = 0.1,
    decay: float = 0.9,
) -> tuple[PerPair, dict[str, float]]:
    """BCO: one loss per pair, in nats, from rewards beside their running mean; the next state."""
    chosen = beta * (policy.chosen.total() - reference.chosen.total())
    rejected = beta * (policy.rejected.total() - reference.rejected.total())
    now = torch.cat((chosen, rejected)).detach().double().mean().item()
    mean = decay * float(state["mean"]) + (1 - decay) * now
    return -logsigmoid(chosen - mean) - logsigmoid(mean - rejected), {"mean": mean}
