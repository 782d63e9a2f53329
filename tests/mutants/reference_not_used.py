"""LN-DPO that reads the reference and forgets it: a SimPO without a margin, with a longer bill.

Liger#387: the first Liger DPO had no reference and was CPO.
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "reads-used"


@method(source="mutant of LN-DPO, arXiv:2411.15124", bounds={"beta": "(0, inf)"})
def reference_not_used(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 5.0
) -> PerPair:
    """LN-DPO: one loss per pair, in nats, from log-ratios per token."""
    return -logsigmoid(beta * (policy.chosen.mean() - policy.rejected.mean()))
