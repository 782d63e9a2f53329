"""CPO that cuts answers off after 128 tokens, which the data were supposed to have done.

Thought up here, after the truncations of trl#6548 and torchtune#2967.
"""

from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "gradient-exists"


@method(source="mutant of CPO, arXiv:2401.08417", bounds={"beta": "(0, inf)"})
def first_columns(policy: PairLogProbs, *, beta: float = 0.1) -> PerPair:
    """CPO's preference term: one loss per pair, in nats, from summed log-probs."""
    return -logsigmoid(beta * (_total(policy.chosen) - _total(policy.rejected)))


def _total(answer: LogProbs) -> PerPair:
    kept = answer.mask & (answer.mask.cumsum(-1) <= 128)
    return LogProbs(answer.values, kept).total()
