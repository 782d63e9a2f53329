"""IPO that averages over tokens whatever it is told: `reduction` is accepted and not read.

Sum or mean is what reversed a published comparison (huggingface/blog#1764, trl#1265, trl#1677).
"""

from typing import Literal

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "settings-used"


@method(
    source="mutant of IPO, arXiv:2310.12036, Eq. 17",
    bounds={"tau": "(0, inf)"},
    at_reference=lambda s: (1 / (2 * s["tau"])) ** 2,
    direction="at_reference",
)
def word_ignored(
    policy: PairLogProbs,
    reference: PairLogProbs,
    *,
    tau: float = 0.1,
    reduction: Literal["mean", "sum"] = "mean",
) -> PerPair:
    """IPO: squared distance of the gap of log-ratios from 1 / (2 tau), one per pair."""
    chosen = policy.chosen.mean() - reference.chosen.mean()
    rejected = policy.rejected.mean() - reference.rejected.mean()
    return (chosen - rejected - 1 / (2 * tau)) ** 2
