"""IPO that claims no direction at all, not even at the reference, where it has one.

Thought up here: "unclaimed" switches the check of the sign off.
"""

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "direction"


@method(
    source="mutant of IPO, arXiv:2310.12036, Eq. 17",
    bounds={"tau": "(0, inf)"},
    at_reference=lambda s: (1 / (2 * s["tau"])) ** 2,
    direction="unclaimed",
)
def direction_disowned(
    policy: PairLogProbs, reference: PairLogProbs, *, tau: float = 0.1
) -> PerPair:
    """IPO: squared distance of the gap of log-ratios per token from 1 / (2 tau), one per pair."""
    chosen = policy.chosen.mean() - reference.chosen.mean()
    rejected = policy.rejected.mean() - reference.rejected.mean()
    return (chosen - rejected - 1 / (2 * tau)) ** 2
