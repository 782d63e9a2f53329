"""Gamma-PO's queue of past gaps without an end: the state of each step is longer than the last.

sunjie279/gammaPO keeps 2048 of them; thought up here is that nothing is ever thrown away.
"""

import torch
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, State, method

CAUGHT_BY: str = "state"


@method(
    source="mutant of gamma-PO, arXiv:2506.03690",
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)"},
    coupled=True,
    initial={"queue": (0.0,) * 8},
    stop_gradient="the baseline",
)
def memory_that_grows(
    policy: PairLogProbs, state: State, *, beta: float = 2.0, alpha: float = 0.5
) -> tuple[PerPair, State]:
    """SimPO: one loss per pair, in nats, against the mean of all gaps so far; the next state."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    queue = torch.cat((state["queue"], gap.detach().double()))
    return -logsigmoid(beta * (gap - alpha * queue.mean().to(gap))), {"queue": queue}
