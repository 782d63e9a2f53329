"""MallowsPO whose entropy is said to be needed for one of its two words, and is for both.

Thought up here; `only_for` was written before the second form was.
"""

import math
from typing import Literal

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PairTokens, PerPair, method

CAUGHT_BY: str = "only-for"


@method(
    source="mutant of MallowsPO, arXiv:2405.14953",
    bounds={"beta": "(0, inf)"},
    at_reference=math.log(2),
    only_for={"entropy": {"over": ("both",)}},
)
def entropy_needed_after_all(
    policy: PairLogProbs,
    reference: PairLogProbs,
    entropy: PairTokens,
    *,
    beta: float = 0.1,
    over: Literal["both", "chosen"] = "both",
) -> PerPair:
    """MallowsPO: DPO's loss per pair, in nats, the gap weighted by how sure the reference is."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    certain = 1 - entropy.chosen.mean()
    if over == "both":
        certain = (certain + 1 - entropy.rejected.mean()) / 2
    return -logsigmoid(beta * (0.1 + certain).to(chosen) * (chosen - rejected))
