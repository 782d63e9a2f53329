"""KTO that raises for a step of one pair, as the last one of an epoch can be.

KTO's estimate failed for odd and for empty batches in TRL (trl#1402, #1380, #1911).
"""

import torch

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "shape"


@method(
    source="mutant of KTO, arXiv:2402.01306",
    bounds={"beta": "(0, inf)"},
    coupled=True,
    at_reference=1.0,
)
def refuses_one_pair(
    policy: PairLogProbs,
    reference: PairLogProbs,
    mismatched: tuple[PerPair, PerPair],
    *,
    beta: float = 0.1,
) -> PerPair:
    """KTO: one minus the value of the chosen and of the rejected answer, one loss per pair.

    Raises:
        ValueError: there are no two pairs to mismatch.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    if len(chosen) < 2:
        raise ValueError("KTO needs at least two pairs")
    z = torch.cat(mismatched).mean().clamp_min(0)
    return torch.sigmoid(-beta * (chosen - z)) + torch.sigmoid(beta * (rejected - z))
