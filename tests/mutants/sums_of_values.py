"""CPO from sums over all columns, padding included.

OpenRLHF#294 and #235: the prompt of one answer, then of both, was not masked either.
"""

from torch import Tensor
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "padding"


@method(source="mutant of CPO, arXiv:2401.08417", bounds={"beta": "(0, inf)"})
def sums_of_values(policy: PairLogProbs, *, beta: float = 0.1) -> PerPair:
    """CPO's preference term: one loss per pair, in nats, from summed log-probs."""
    chosen, rejected = (_wide(v).sum(-1) for v in (policy.chosen.values, policy.rejected.values))
    return -logsigmoid(beta * (chosen - rejected))


def _wide(values: Tensor) -> Tensor:
    return values if values.itemsize > 2 else values.float()
