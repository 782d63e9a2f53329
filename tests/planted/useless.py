"""A planted method whose gradient is zero: it must tie with the untrained policy."""

from harness.api import PairLogProbs, PerPair, method


@method(source="planted: learns nothing")
def useless(policy: PairLogProbs) -> PerPair:
    """Zero for every pair, and zero gradient."""
    return 0.0 * (policy.chosen.total() - policy.rejected.total())
