"""A planted method that leaves the finite numbers at its second step."""

from harness.api import PairLogProbs, PerPair, method


@method(source="planted: NaN as soon as the policy has moved")
def diverging(policy: PairLogProbs, reference: PairLogProbs) -> PerPair:
    """A loss that is finite at the reference and nowhere else."""
    moved = policy.chosen.total() - reference.chosen.total()
    return moved / (moved.detach().abs().mean() < 1e-3)
