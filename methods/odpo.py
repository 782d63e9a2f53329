"""ODPO: DPO whose chosen answer must win by an offset that grows with the reward gap."""

from typing import Literal

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

FLOOR = 1e-30
"""Least score gap; its logarithm is -69. Far above the least fp32, so that precisions agree."""


@method(
    source="arXiv:2402.10571; rycolab/odpo trainers.py:91-99 @6152f67",
    formula="-log sigmoid(beta * (h_w - h_l) - alpha * log(d)), d = reward_w - reward_l"
    " (log_difference) or reward_w / reward_l (log_ratio), at least 1e-30",
    disagreements=(
        "The authors' code takes the logarithm of a gap that is 0 or negative as it comes, -inf "
        "or NaN, for its pairs are ordered by the score; here such a gap is 1e-30: the limit, in "
        "which a pair costs nothing.",
    ),
    # alpha 1: the authors' configuration. It wants a beta: 0.1 to 0.5 is what the code calls usual.
    grid={"beta": (0.1, 0.5), "alpha": (0.5, 1.0)},
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)"},
)
def odpo(
    policy: PairLogProbs,
    reference: PairLogProbs,
    rewards: tuple[PerPair, PerPair],
    *,
    beta: float = 0.1,
    alpha: float = 1.0,
    offset: Literal["log_difference", "log_ratio"] = "log_difference",
) -> PerPair:
    """ODPO: DPO's loss per pair, in nats, minus an offset made of the two rewards.

    The offset is negative for a gap below 1, and falls without end towards a gap of 0: there the
    loss and its gradient vanish. A pair whose rewards contradict its label has no offset by the
    formula; it is given that limit, a gap of 1e-30, so that almost nothing is learnt from it.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        rewards: reward of the chosen and of the rejected answer; no gradient passes them.
        beta: reward per nat of log-ratio.
        alpha: weight of the offset; 0 is DPO.
        offset: "log_difference" of the rewards, or "log_ratio", for rewards that are positive: a
            pair with a reward of 0 or less is treated as one that contradicts its label.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    better, worse = (reward.detach() for reward in rewards)
    ratio = (better / worse).where(worse > 0, 0.0)
    gap = better - worse if offset == "log_difference" else ratio
    return -logsigmoid(beta * (chosen - rejected) - alpha * gap.clamp_min(FLOOR).log())
