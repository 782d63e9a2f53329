"""MADPO whose c_min is computed from c_max, although it can be set.

The authors' notebook sets c_min = 1 / c_max; with that in the formula the setting is inert.
"""

import torch
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "settings-used"


@method(
    source="mutant of MADPO, arXiv:2510.05342",
    bounds={"beta": "(0, inf)", "c_max": "(1, inf)", "c_min": "(0, 1)", "tau": "[0, inf)"},
)
def floor_from_the_ceiling(
    policy: PairLogProbs,
    reference: PairLogProbs,
    margin: PerPair,
    *,
    beta: float = 0.1,
    c_max: float = 2.0,
    c_min: float = 0.5,
    tau: float = 2.0,
) -> PerPair:
    """MADPO: DPO's loss per pair, in nats, times a weight that depends on the margin alone."""
    c_min = 1 / c_max
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    steepness = (c_max - 1) / (1 - c_min) * (margin.abs() - tau).clamp_max(80.0).exp()
    c = c_min + (c_max - c_min) / (1 + steepness)
    ratio = (logsigmoid(c * margin) - logsigmoid(margin)).clamp_max(80.0).exp()
    weight = torch.where(margin > -tau, ratio, torch.ones_like(ratio))
    return -weight * logsigmoid(beta * (chosen - rejected))
