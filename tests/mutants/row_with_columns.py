"""SLiC-HF that adds a row of losses to a table of tokens: B with B x L.

HALOs, `trainers.py`: it raises, or mixes the pairs where B happens to be L.
"""

from torch import relu

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "shape"


@method(
    source="mutant of SLiC-HF, arXiv:2305.10425",
    bounds={"delta": "[0, inf)", "lambda_": "[0, inf)"},
)
def row_with_columns(policy: PairLogProbs, *, delta: float = 1.0, lambda_: float = 0.1) -> PerPair:
    """SLiC-HF: a hinge loss of summed log-probs and the chosen tokens' likelihood, in nats."""
    ranking = relu(delta - policy.chosen.total() + policy.rejected.total())
    likelihood = policy.chosen.values.masked_fill(~policy.chosen.mask, 0.0)
    return ranking - lambda_ * likelihood
