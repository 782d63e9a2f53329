"""IPO that declares 1 / (4 tau) for its first loss, where its square is.

Thought up here: a gate that stops right runs or lets wrong ones through.
"""

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "at-reference"


@method(
    source="mutant of IPO, arXiv:2310.12036, Eq. 17",
    bounds={"tau": "(0, inf)"},
    at_reference=lambda s: 1 / (4 * s["tau"]),
    direction="at_reference",
)
def value_of_another_form(
    policy: PairLogProbs, reference: PairLogProbs, *, tau: float = 0.1
) -> PerPair:
    """IPO: squared distance of the gap of log-ratios per token from 1 / (2 tau), one per pair."""
    chosen = policy.chosen.mean() - reference.chosen.mean()
    rejected = policy.rejected.mean() - reference.rejected.mean()
    return (chosen - rejected - 1 / (2 * tau)) ** 2
