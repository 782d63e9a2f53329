"""Beta-DPO's choice of pairs near the step's mean gap, without a word that pairs hang together.

Thought up here; that a loss draws random numbers does not make its pairs independent.
"""

import torch
from torch import Generator
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "coupling"


@method(
    source="mutant of beta-DPO, arXiv:2407.08639",
    bounds={"beta": "(0, inf)", "rho": "(0, 1]"},
)
def draws_by_the_others(
    policy: PairLogProbs,
    reference: PairLogProbs,
    rng: Generator,
    *,
    beta: float = 0.1,
    rho: float = 0.8,
) -> PerPair:
    """DPO's loss per pair, in nats, for pairs near the step's average gap, and 0 for the rest."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    far = (chosen - rejected).detach().double()
    far = (far - far.mean()).square()
    noise = -torch.empty_like(far).exponential_(generator=rng).log()
    kept = (noise - far).topk(max(1, int(rho * len(far)))).indices
    weight = torch.zeros_like(chosen).index_fill(0, kept, len(far) / len(kept))
    return -weight * logsigmoid(beta * (chosen - rejected))
