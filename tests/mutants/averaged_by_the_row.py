"""IPO averaged over the width of the batch instead of the length of the answer.

ms-swift#9925: divided by the length of the whole packed row.
"""

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "padding"


@method(
    source="mutant of IPO, arXiv:2310.12036, Eq. 17",
    bounds={"tau": "(0, inf)"},
    at_reference=lambda s: (1 / (2 * s["tau"])) ** 2,
    direction="at_reference",
)
def averaged_by_the_row(
    policy: PairLogProbs, reference: PairLogProbs, *, tau: float = 0.1
) -> PerPair:
    """IPO: squared distance of the gap of log-ratios per token from 1 / (2 tau), one per pair."""
    chosen = _mean(policy.chosen) - _mean(reference.chosen)
    rejected = _mean(policy.rejected) - _mean(reference.rejected)
    return (chosen - rejected - 1 / (2 * tau)) ** 2


def _mean(answer: LogProbs) -> PerPair:
    return answer.total() / answer.values.shape[-1]
