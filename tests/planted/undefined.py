"""A planted method whose loss is 0/0 while the policy is the reference."""

from harness.api import PairLogProbs, PerPair, method


@method(source="planted: undefined at the reference")
def undefined(policy: PairLogProbs, reference: PairLogProbs) -> PerPair:
    """A log-ratio over itself."""
    moved = policy.chosen.total() - reference.chosen.total()
    return moved / moved.detach()
