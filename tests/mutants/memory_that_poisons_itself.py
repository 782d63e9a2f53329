"""DPO scaled by a running deviation, which a single step of one pair turns to NaN for good.

alpha-DPO and beta-DPO take the unbiased deviation of however few pairs there are; the guard here
is on the scale, as in a quick repair, and not on what is remembered.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, State, method

CAUGHT_BY: str = "state"


@method(
    source="mutant of beta-DPO, arXiv:2407.08639",
    bounds={"beta": "(0, inf)", "decay": "[0, 1)"},
    coupled=True,
    initial={"spread": 0.0},
    at_reference=math.log(2),
    stop_gradient="the running deviation",
)
def memory_that_poisons_itself(
    policy: PairLogProbs,
    reference: PairLogProbs,
    state: State,
    *,
    beta: float = 0.1,
    decay: float = 0.9,
) -> tuple[PerPair, State]:
    """DPO's loss per pair, in nats, of gaps over one plus their running deviation; the state."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    above = (chosen - rejected).detach().double()
    above = above - above.mean()
    now = (above.square().sum() / (len(above) - 1)).sqrt()
    spread = decay * state["spread"] + (1 - decay) * now
    scale = 1 / (1 + spread.nan_to_num(0.0).to(chosen))
    return -logsigmoid(beta * scale * (chosen - rejected)), {"spread": spread}
