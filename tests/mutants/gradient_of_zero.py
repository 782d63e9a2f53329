"""ORPO whose odds go through Python numbers and come back without a graph: nothing is learnt.

mlx-lm-lora#65: the gradient of ORPO and of CPO was zero.
"""

import math

import torch
from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "gradient-exists"


@method(source="mutant of ORPO, arXiv:2403.07691", bounds={"lambda_": "(0, inf)"})
def gradient_of_zero(policy: PairLogProbs, *, lambda_: float = 0.1) -> PerPair:
    """ORPO's odds term: one loss per pair, in nats, from mean log-probs per token."""
    odds = _log_odds(policy.chosen) - _log_odds(policy.rejected)
    return -lambda_ * logsigmoid(odds)


def _log_odds(answer: LogProbs) -> PerPair:
    means = [min(mean, -1e-7) for mean in answer.mean().tolist()]
    odds = [mean - math.log(-math.expm1(mean)) for mean in means]
    return torch.tensor(odds, dtype=answer.total().dtype)
