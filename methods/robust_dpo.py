"""Robust DPO: an estimate of DPO's loss on clean labels, from labels that are partly wrong."""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2403.00409; huggingface/trl trl/trainer/dpo_trainer.py:1475-1478 @f2cd577",
    formula="(-(1 - epsilon) * log sigmoid(z) + epsilon * log sigmoid(-z)) / (1 - 2 * epsilon),"
    " z = beta * (h_w - h_l)",
    disagreements=(
        "TRL's label_smoothing, the epsilon here, is 0 unless told, which is DPO; here it is 0.1.",
    ),
    grid={"beta": (0.01, 0.05, 0.1), "epsilon": (0.1, 0.2, 0.3)},
    bounds={"beta": "(0, inf)", "epsilon": "[0, 0.5)"},
    at_reference=math.log(2),
)
def robust_dpo(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, epsilon: float = 0.1
) -> PerPair:
    """Robust DPO: one loss per pair, in nats; negative where the reward gap is wide.

    Over a label that is flipped with probability epsilon, the mean of this loss is DPO's loss for
    the true label. It falls without bound as the reward gap grows. With `epsilon` 0 this is DPO.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: reward per nat of log-ratio.
        epsilon: share of labels that is believed wrong.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    z = beta * (chosen - rejected)
    return (-(1 - epsilon) * logsigmoid(z) + epsilon * logsigmoid(-z)) / (1 - 2 * epsilon)
