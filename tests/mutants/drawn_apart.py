"""SamPO that declares ln 2, although policy and reference are summed over other tokens.

LuJunru/SamPO, `dpo_trainer.py`, draws anew in each forward pass; the declaration is of the form
that shares its draws.
"""

import math

import torch
from torch import Generator
from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "at-reference"


@method(
    source="mutant of SamPO, arXiv:2406.10957",
    bounds={"beta": "(0, inf)"},
    at_reference=math.log(2),
)
def drawn_apart(
    policy: PairLogProbs, reference: PairLogProbs, rng: Generator, *, beta: float = 0.1
) -> PerPair:
    """SamPO: DPO's loss per pair, in nats, from equally many drawn tokens of both answers."""
    keep = torch.minimum(policy.chosen.length, policy.rejected.length).unsqueeze(-1)

    def sampled(answer: LogProbs) -> PerPair:
        drawn = torch.rand(int(answer.mask.sum()), generator=rng, dtype=torch.float64)
        numbers = torch.full(answer.mask.shape, 2.0, dtype=torch.float64)
        rank = numbers.masked_scatter(answer.mask, drawn).argsort(-1).argsort(-1)
        return LogProbs(answer.values, answer.mask & (rank < keep)).total()

    chosen = sampled(policy.chosen) - sampled(reference.chosen)
    rejected = sampled(policy.rejected) - sampled(reference.rejected)
    return -logsigmoid(beta * (chosen - rejected))
