"""CPO whose losses lose their only place where the step is one pair: `squeeze` takes all of them.

Thought up here; it happens wherever tensors come with a last place of 1.
"""

import torch
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "shape"


@method(source="mutant of CPO, arXiv:2401.08417", bounds={"beta": "(0, inf)"})
def squeezed(policy: PairLogProbs, *, beta: float = 0.1) -> PerPair:
    """CPO's preference term: one loss per pair, in nats, from summed log-probs."""
    totals = torch.stack((policy.chosen.total(), policy.rejected.total()), dim=-1)
    chosen, rejected = totals.unsqueeze(-1).unbind(dim=1)
    return -logsigmoid(beta * (chosen - rejected)).squeeze()
