"""A hinge loss that does not say where it is from. Thought up here."""

from torch import relu

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "described"


@method(source="", bounds={"beta": "(0, inf)"}, at_reference=1.0)
def no_source(policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.05) -> PerPair:
    """Hinge: one loss per pair, without unit, 0 beyond a reward gap of 1."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return relu(1 - beta * (chosen - rejected))
