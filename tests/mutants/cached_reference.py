"""DPO that asks for cached sums under a name which nothing provides.

HALOs does so for its paired losses: they read a key that is absent from the batch.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "loads"


@method(
    source="mutant of DPO, arXiv:2305.18290, Eq. 7",
    bounds={"beta": "(0, inf)"},
    at_reference=math.log(2),
)
def cached_reference(
    policy: PairLogProbs, reference_logps: tuple[PerPair, PerPair], *, beta: float = 0.1
) -> PerPair:
    """DPO: one loss per pair, in nats, from cached sums of the reference."""
    chosen = policy.chosen.total() - reference_logps[0]
    rejected = policy.rejected.total() - reference_logps[1]
    return -logsigmoid(beta * (chosen - rejected))
