"""AlphaDPO's z-scores of two pairs at a time: the micro-batch, written into the loss.

alpha-DPO, `scripts/dpo_trainer.py`: statistics of a micro-batch, though sixteen are accumulated.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "order"


@method(
    source="mutant of AlphaDPO, arXiv:2410.10148",
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)"},
    coupled=True,
    stop_gradient="the target margin",
)
def groups_of_two(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 2.5, alpha: float = 0.2
) -> PerPair:
    """AlphaDPO: one loss per pair, in nats, with a target from the statistics of the step."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    moved = (gap - (reference.chosen.mean() - reference.rejected.mean())).detach()
    z = torch.cat([_scored(group) for group in moved.split(2)])
    return -logsigmoid(beta * (gap - alpha * z))


def _scored(group: Tensor) -> Tensor:
    above = group - group.mean()
    return above / (above.square().mean().sqrt() + 1e-2)
