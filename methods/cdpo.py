"""cDPO: DPO for labels of which a known share is wrong."""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="E. Mitchell, A note on DPO with noisy preferences (2023);"
    " eric-mitchell/direct-preference-optimization trainers.py:82 @f8b8c0f; ContextualAI/HALOs"
    " train/trainers.py:767 @4831988",
    formula="-(1 - epsilon) * log sigmoid(z) - epsilon * log sigmoid(-z), z = beta * (h_w - h_l)",
    disagreements=(
        "The author's code has epsilon 0 unless told, which is DPO; the default here is HALOs'.",
        "TRL's current `sigmoid` loss accepts label_smoothing and ignores it: there cDPO is DPO.",
    ),
    grid={"beta": (0.01, 0.05, 0.1), "epsilon": (0.1, 0.2, 0.3)},
    bounds={"beta": "(0, inf)", "epsilon": "[0, 0.5)"},
    at_reference=math.log(2),
    direction="at_reference",
)
def cdpo(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, epsilon: float = 0.2
) -> PerPair:
    """cDPO: the mean of DPO's losses for both labels of a pair, in nats, one per pair.

    The label as given weighs 1 - epsilon and the other epsilon. The minimum is finite: at a reward
    gap of log((1 - epsilon) / epsilon). With `epsilon` 0 this is DPO.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: reward per nat of log-ratio.
        epsilon: share of labels that is believed wrong.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    z = beta * (chosen - rejected)
    return -(1 - epsilon) * logsigmoid(z) - epsilon * logsigmoid(-z)
