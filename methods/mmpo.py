"""MMPO: DPO whose label is as soft as the margin between the two answers says."""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2410.03145; kykim0/margin-matching-pref-opt"
    " src/alignment/trainer/dpo_trainer.py:109-114 @91b6dad, p in scripts/run_dpo.py",
    formula="-p * log sigmoid(z) - (1 - p) * log sigmoid(-z), z = beta * (h_w - h_l),"
    " p = sigmoid(gamma * margin)",
    disagreements=(
        "The authors' gamma (`bt_beta`) is off in all their recipes, which is DPO, and "
        "multiplies a gap of ratings from 1 to 10 (by 1.1, says a released model's name); here "
        "it multiplies log-odds, so that at 1 the label is the reward model's own probability.",
        "The authors' configuration has beta 0.1 and their recipes 0.01.",
    ),
    grid={"beta": (0.01, 0.1), "gamma": (0.5, 1.0, 2.0)},
    bounds={"beta": "(0, inf)", "gamma": "(0, inf)"},
    direction="unclaimed",  # where the margin contradicts the label, the margin is believed
    at_reference=math.log(2),
)
def mmpo(
    policy: PairLogProbs,
    reference: PairLogProbs,
    margin: PerPair,
    *,
    beta: float = 0.1,
    gamma: float = 1.0,
) -> PerPair:
    """MMPO: the cross-entropy per pair, in nats, of the policy's preference and a soft label.

    The minimum is where the policy's reward gap is gamma * margin. A negative margin makes the
    rejected answer the better one; the authors exchange the two answers then, which is the same
    loss. A margin of 0 asks for equal log-ratios.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        margin: reward of the chosen minus reward of the rejected answer, in nats; no
            gradient passes it.
        beta: reward per nat of log-ratio.
        gamma: trust in the margin. Without bound, and for positive margins, this is DPO; where
            gamma * margin is log((1 - epsilon) / epsilon) it is cDPO.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    z = beta * (chosen - rejected)
    # Of -gamma * margin, and not 1 - p: that would lose the digits of a small share.
    sure = gamma * margin.detach()
    p, q = sure.sigmoid(), (-sure).sigmoid()
    return -p * logsigmoid(z) - q * logsigmoid(-z)
