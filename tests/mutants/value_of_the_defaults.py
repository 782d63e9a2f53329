"""IPO that declares its first loss as a number, which is right for its default alone.

Thought up here: every trial with another tau would be stopped at its first step.
"""

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "at-reference"


@method(
    source="mutant of IPO, arXiv:2310.12036, Eq. 17",
    grid={"tau": (0.01, 0.1, 0.5, 1.0)},
    bounds={"tau": "(0, inf)"},
    at_reference=25.0,
    direction="at_reference",
)
def value_of_the_defaults(
    policy: PairLogProbs, reference: PairLogProbs, *, tau: float = 0.1
) -> PerPair:
    """IPO: squared distance of the gap of log-ratios per token from 1 / (2 tau), one per pair."""
    chosen = policy.chosen.mean() - reference.chosen.mean()
    rejected = policy.rejected.mean() - reference.rejected.mean()
    return (chosen - rejected - 1 / (2 * tau)) ** 2
