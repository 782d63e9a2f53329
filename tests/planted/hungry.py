"""A planted method that asks for more memory than any machine has."""

import torch

from harness.api import PairLogProbs, PerPair, method


@method(source="planted: out of memory")
def hungry(policy: PairLogProbs) -> PerPair:
    """Never returns."""
    return policy.chosen.total() + torch.zeros(2**45).sum()
