"""The old pairwise KTO with an undetached KL: the point of comparison moves with what is compared.

alpha-DPO, `scripts/dpo_trainer.py`, the branch `kto`.
"""

from torch import sigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "gradient-true"


@method(
    source="mutant of KTO's pairwise form; junkangwu/alpha-DPO scripts/dpo_trainer.py @fab3209",
    bounds={"beta": "(0, inf)"},
    coupled=True,
    at_reference=1.0,
    stop_gradient="the estimates of the KL",
)
def own_divergence_leaks(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1
) -> PerPair:
    """KTO of pairs: two minus the values of both answers, one loss per pair."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    of_chosen, of_rejected = chosen.mean().clamp_min(0), rejected.mean().clamp_min(0)
    return sigmoid(-beta * (chosen - of_rejected)) + sigmoid(-beta * (of_chosen - rejected))
