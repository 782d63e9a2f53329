"""LN-DPO declared to be coupled: each step is then computed twice over, for nothing.

Thought up here: a plug-in made from the file of one whose pairs hang together.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "coupling"


@method(
    source="mutant of LN-DPO, arXiv:2411.15124",
    bounds={"beta": "(0, inf)"},
    coupled=True,
    at_reference=math.log(2),
)
def coupling_declared(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 5.0
) -> PerPair:
    """LN-DPO: one loss per pair, in nats, from log-ratios per token."""
    chosen = policy.chosen.mean() - reference.chosen.mean()
    rejected = policy.rejected.mean() - reference.rejected.mean()
    return -logsigmoid(beta * (chosen - rejected))
