"""CPO whose mask is a factor: NaN and infinity times 0 are NaN.

Trainers multiply by the loss mask like this; it works as long as all padding is finite.
"""

from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "padding"


@method(source="mutant of CPO, arXiv:2401.08417", bounds={"beta": "(0, inf)"})
def mask_as_a_factor(policy: PairLogProbs, *, beta: float = 0.1) -> PerPair:
    """CPO's preference term: one loss per pair, in nats, from summed log-probs."""
    return -logsigmoid(beta * (_total(policy.chosen) - _total(policy.rejected)))


def _total(answer: LogProbs) -> PerPair:
    values = answer.values if answer.values.itemsize > 2 else answer.values.float()
    return (values * answer.mask).sum(-1)
