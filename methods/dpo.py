"""DPO: the reward is the log-ratio of the policy to the reference."""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2305.18290, Eq. 7; eric-mitchell/direct-preference-optimization trainers.py:45-87"
    " @f8b8c0f",
    formula="-log sigmoid(beta * (h_w - h_l))",
    # 0.1: the paper and most libraries; 0.01: best in all six settings of SimPO's comparison;
    # the four together: the sweep of arXiv:2605.28440.
    grid={"beta": (0.005, 0.01, 0.05, 0.1)},
    bounds={"beta": "(0, inf)"},
    at_reference=math.log(2),
)
def dpo(policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1) -> PerPair:
    """DPO: one loss per pair, in nats, from log-ratios summed over the answer.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: reward per nat of log-ratio; the smaller, the further the policy may move.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return -logsigmoid(beta * (chosen - rejected))
