"""Random pairs chosen well, but torch's global generator is seeded on the way.

Thought up here; what else draws from it, dropout or the order of batches, repeats itself from then
on at every step.
"""

import torch
from torch import Generator
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "repeatable"


@method(
    source="mutant of beta-DPO, arXiv:2407.08639",
    bounds={"beta": "(0, inf)", "rho": "(0, 1]"},
)
def seeds_the_global_generator(
    policy: PairLogProbs,
    reference: PairLogProbs,
    rng: Generator,
    *,
    beta: float = 0.1,
    rho: float = 0.8,
) -> PerPair:
    """DPO's loss per pair, in nats, for a share of the pairs, and 0 for the rest."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    torch.manual_seed(rng.initial_seed())
    kept = torch.randperm(len(chosen))[: max(1, int(rho * len(chosen)))]
    weight = torch.zeros_like(chosen).index_fill(0, kept, len(chosen) / len(kept))
    return -weight * logsigmoid(beta * (chosen - rejected))
