"""LD-DPO: DPO in which what the longer answer has more of counts less."""

import math

import torch
from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method


@method(
    source="arXiv:2409.06411; huggingface/trl trl/trainer/dpo_trainer.py:1349-1361 (ld_alpha)"
    " @f2cd577",
    formula="-log sigmoid(beta * (d_w - d_l)), d = h of the first min(L_w, L_l) tokens"
    " + alpha * h of the tokens after them",
    disagreements=(
        "TRL leaves alpha unset, which is DPO; 0.5 is a suggested value and no default of a source "
        "that was read.",
    ),
    grid={"beta": (0.01, 0.1, 0.5), "alpha": (0.25, 0.5, 0.75)},
    bounds={"beta": "(0, inf)", "alpha": "[0, 1]"},
    at_reference=math.log(2),
)
def ld_dpo(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, alpha: float = 0.5
) -> PerPair:
    """LD-DPO: DPO's loss per pair, in nats, with a discount on the longer answer's tail.

    The tail is what comes after the first min(L_w, L_l) response tokens. Equally long answers
    give DPO, and so does an `alpha` of 1.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: reward per nat of log-ratio.
        alpha: weight of the tail's log-ratios; at 0 it is cut off.
    """
    shared = torch.minimum(policy.chosen.length, policy.rejected.length).unsqueeze(-1)

    def discounted(answer: LogProbs) -> PerPair:
        # Tokens are counted by the mask: a column number is not a position where padding is left.
        tail = answer.mask & (answer.mask.cumsum(-1) > shared)
        return answer.total() - (1 - alpha) * LogProbs(answer.values, tail).total()

    chosen = discounted(policy.chosen) - discounted(reference.chosen)
    rejected = discounted(policy.rejected) - discounted(reference.rejected)
    return -logsigmoid(beta * (chosen - rejected))
