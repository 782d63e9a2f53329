"""A weight that clamps the reward model's margins where they lie, for every method after it.

Thought up here; `clamp_` is one letter away from `clamp`.
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "inputs-untouched"


@method(source="mutant of MADPO, arXiv:2510.05342", bounds={"beta": "(0, inf)"})
def clamps_margins_in_place(
    policy: PairLogProbs, reference: PairLogProbs, margin: PerPair, *, beta: float = 0.1
) -> PerPair:
    """DPO's loss per pair, in nats, weighted by margins from 0 to 2."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return -margin.clamp_(0.0, 2.0) * logsigmoid(beta * (chosen - rejected))
