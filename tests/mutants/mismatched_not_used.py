"""KTO whose point of reference is taken from the matched answers, although it asks for others.

TRL's former `kto_pair` and alpha-DPO's `kto` take it from the pairs' own answers: older losses.
"""

import torch

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "reads-used"


@method(
    source="mutant of KTO, arXiv:2402.01306",
    bounds={"beta": "(0, inf)"},
    coupled=True,
    at_reference=1.0,
    stop_gradient="the point of reference",
)
def mismatched_not_used(
    policy: PairLogProbs,
    reference: PairLogProbs,
    mismatched: tuple[PerPair, PerPair],
    *,
    beta: float = 0.1,
) -> PerPair:
    """KTO: two minus the values of the chosen and of the rejected answer, one loss per pair."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    z = torch.cat((chosen, rejected)).detach().mean().clamp_min(0)
    return torch.sigmoid(-beta * (chosen - z)) + torch.sigmoid(beta * (rejected - z))
