"""SamPO that draws a number for each column: another width of the batch, other tokens.

Thought up here; LuJunru/SamPO, `dpo_trainer.py`, draws from the tokens of each answer.
"""

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "padding"


@method(
    source="mutant of SamPO, arXiv:2406.10957",
    bounds={"beta": "(0, inf)"},
    at_reference=math.log(2),
)
def draws_for_padding(
    policy: PairLogProbs, reference: PairLogProbs, rng: Generator, *, beta: float = 0.1
) -> PerPair:
    """SamPO: DPO's loss per pair, in nats, from equally many drawn tokens of both answers."""
    keep = torch.minimum(policy.chosen.length, policy.rejected.length)
    chosen, rejected = (_drawn(side, keep, rng) for side in (policy.chosen, policy.rejected))
    gap = _total(policy.chosen, chosen) - _total(reference.chosen, chosen)
    lost = _total(policy.rejected, rejected) - _total(reference.rejected, rejected)
    return -logsigmoid(beta * (gap - lost))


def _drawn(answer: LogProbs, keep: PerPair, rng: Generator) -> Tensor:
    drawn = torch.rand(answer.mask.shape, generator=rng).masked_fill(~answer.mask, 2.0)
    return answer.mask & (drawn.argsort(-1).argsort(-1) < keep.unsqueeze(-1))


def _total(answer: LogProbs, kept: Tensor) -> PerPair:
    return LogProbs(answer.values, kept).total()
