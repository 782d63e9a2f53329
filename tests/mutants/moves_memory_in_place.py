"""BCO whose running mean is moved in the tensor that it was given: `mul_` and `add_`.

A trainer's own attribute, as in alpha-DPO's and beta-DPO's trainers, may be moved like that; here
evaluation would move it too, although it throws the next state away.
"""

import math

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
def moves_memory_in_place(
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
    mean = state["mean"].mul_(decay).add_((1 - decay) * now)
    shift = mean.to(chosen, copy=True)
    return -logsigmoid(chosen - shift) - logsigmoid(shift - rejected), {"mean": mean.clone()}
