"""CPO that sums the values in the precision in which they come, and widens the sum.

Trap 7: 0.18 nats over 40 tokens, and more for longer answers.
"""

from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "bf16"


@method(source="mutant of CPO, arXiv:2401.08417", bounds={"beta": "(0, inf)"})
def sums_in_half_precision(policy: PairLogProbs, *, beta: float = 0.1) -> PerPair:
    """CPO's preference term: one loss per pair, in nats, from summed log-probs."""
    return -logsigmoid(beta * (_total(policy.chosen) - _total(policy.rejected)))


def _total(answer: LogProbs) -> PerPair:
    total = answer.values.masked_fill(~answer.mask, 0.0).sum(-1)
    return total if total.itemsize > 2 else total.float()
