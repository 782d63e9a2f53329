"""SamPO that takes the first tokens of the longer answer instead of drawing some.

Thought up here; the result is LD-DPO with an alpha of 0 under another name.
"""

import math

import torch
from torch import Generator
from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method

CAUGHT_BY: str = "reads-used"


@method(
    source="mutant of SamPO, arXiv:2406.10957",
    bounds={"beta": "(0, inf)"},
    at_reference=math.log(2),
)
def first_tokens_not_drawn(
    policy: PairLogProbs, reference: PairLogProbs, rng: Generator, *, beta: float = 0.1
) -> PerPair:
    """SamPO: DPO's loss per pair, in nats, from equally many tokens of both answers."""
    keep = torch.minimum(policy.chosen.length, policy.rejected.length).unsqueeze(-1)

    def sampled(answer: LogProbs) -> PerPair:
        kept = answer.mask & (answer.mask.cumsum(-1) <= keep)
        return LogProbs(answer.values, kept).total()

    chosen = sampled(policy.chosen) - sampled(reference.chosen)
    rejected = sampled(policy.rejected) - sampled(reference.rejected)
    return -logsigmoid(beta * (chosen - rejected))
