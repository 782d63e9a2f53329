"""ORPO's odds with nothing against an answer of probability one: the logarithm of 0.

Thought up here; fp32 rounds the log-prob of a sure token to exactly 0.
"""

import torch
from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "finite"


@method(source="mutant of ORPO, arXiv:2403.07691", bounds={"lambda_": "(0, inf)"})
def odds_of_certainty(policy: PairLogProbs, *, lambda_: float = 0.1) -> PerPair:
    """ORPO: likelihood of the chosen answer and odds against the rejected one, in nats per pair."""
    odds = _log_odds(policy.chosen) - _log_odds(policy.rejected)
    return -policy.chosen.mean() - lambda_ * logsigmoid(odds)


def _log_odds(answer: LogProbs) -> PerPair:
    mean = answer.mean()
    return mean - torch.log1p(-mean.exp())
