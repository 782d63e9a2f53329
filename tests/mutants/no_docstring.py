"""A hinge loss that does not say what it returns. Thought up here."""

from torch import relu

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "described"


@method(source="mutant of hinge, arXiv:2309.06657", bounds={"beta": "(0, inf)"}, at_reference=1.0)
def no_docstring(policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.05) -> PerPair:
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return relu(1 - beta * (chosen - rejected))
