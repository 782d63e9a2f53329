"""KTO whose point of reference is the log-ratio of the pair before, for want of mismatched answers.

TRL's KTO scores the answer of example i - 1 after prompt i. Thought up here is to roll the numbers
of the matched pairs instead, which estimates nothing.
"""

import torch

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "order"


@method(
    source="mutant of KTO, arXiv:2402.01306",
    bounds={"beta": "(0, inf)"},
    coupled=True,
    at_reference=1.0,
    stop_gradient="the point of reference",
)
def pair_before(policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1) -> PerPair:
    """KTO: two minus the values of the chosen and of the rejected answer, one loss per pair."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    z = chosen.detach().roll(1).clamp_min(0)
    return torch.sigmoid(-beta * (chosen - z)) + torch.sigmoid(beta * (rejected - z))
