"""BCO that returns the state it was given: its running mean stays at zero for ever.

Thought up here; TRL's BCO moves it in training before each use.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, State, method

CAUGHT_BY: str = "state"


@method(
    source="mutant of BCO, arXiv:2404.04656",
    bounds={"beta": "(0, inf)"},
    initial={"mean": 0.0},
    at_reference=2 * math.log(2),
)
def memory_that_never_moves(
    policy: PairLogProbs,
    reference: PairLogProbs,
    state: State,
    *,
    beta: float = 0.1,
) -> tuple[PerPair, State]:
    """BCO: one loss per pair, in nats, from rewards beside their running mean; the next state."""
    chosen = beta * (policy.chosen.total() - reference.chosen.total())
    rejected = beta * (policy.rejected.total() - reference.rejected.total())
    shift = state["mean"].to(chosen)
    return -logsigmoid(chosen - shift) - logsigmoid(shift - rejected), dict(state)
