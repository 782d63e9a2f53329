"""CPO with the logarithm of a sigmoid for `logsigmoid`: infinite where the sigmoid rounds to 0.

Thought up here; every course on numerics has it.
"""

import torch

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "finite"


@method(source="mutant of CPO, arXiv:2401.08417", bounds={"beta": "(0, inf)"})
def log_of_sigmoid(policy: PairLogProbs, *, beta: float = 0.1) -> PerPair:
    """CPO's preference term: one loss per pair, in nats, from summed log-probs."""
    gap = policy.chosen.total() - policy.rejected.total()
    return -torch.log(torch.sigmoid(beta * gap))
