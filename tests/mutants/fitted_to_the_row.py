"""RRHF whose fine-tuning term is divided by the padded length.

GanjinZero/RRHF, `train.py`.
"""

from torch import relu

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "padding"


@method(source="mutant of RRHF, arXiv:2304.05302", bounds={"weight": "[0, inf)"})
def fitted_to_the_row(policy: PairLogProbs, *, weight: float = 1.0) -> PerPair:
    """RRHF: a ranking loss of mean log-probs and the chosen answer's likelihood, one per pair."""
    ranking = relu(policy.rejected.mean() - policy.chosen.mean())
    fit = -policy.chosen.total() / policy.chosen.mask.size(1)
    return weight * ranking + fit
