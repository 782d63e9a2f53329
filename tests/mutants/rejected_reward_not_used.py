"""ODPO with the chosen answer's reward where the gap of both should stand.

Thought up here; MM-RLHF#6, #10: margins of rewards that are in the paper and not in the code.
"""

from torch.nn.functional import logsigmoid, softplus

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "reads-used"


@method(
    source="mutant of ODPO, arXiv:2402.10571",
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)"},
)
def rejected_reward_not_used(
    policy: PairLogProbs,
    reference: PairLogProbs,
    rewards: tuple[PerPair, PerPair],
    *,
    beta: float = 0.1,
    alpha: float = 1.0,
) -> PerPair:
    """ODPO: one loss per pair, in nats, the gap of rewards less the log of the gap of scores."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    score, _ = rewards
    return -logsigmoid(beta * (chosen - rejected) - alpha * (1 + softplus(score)).log())
