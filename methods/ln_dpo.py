"""LN-DPO: DPO on mean log-ratios per token instead of sums."""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2411.15124 (Tulu 3); huggingface/trl trl/trainer/dpo_trainer.py:1551-1556"
    " (sigmoid_norm) @f2cd577",
    formula="-log sigmoid(beta * (h_w / L_w - h_l / L_l))",
    disagreements=(
        "The form is verified in TRL, whose default beta is 0.1 for every loss; the default 5 here "
        "is that of Tulu 3, recalled and not read.",
        "TRL divides by the number of tokens before the mask is shifted: the same number unless an "
        "answer starts without a prompt.",
    ),
    grid={"beta": (2.0, 5.0, 10.0)},
    bounds={"beta": "(0, inf)"},
    at_reference=math.log(2),
)
def ln_dpo(policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 5.0) -> PerPair:
    """LN-DPO: one loss per pair, in nats, from mean log-ratios per token.

    Where all answers have L tokens this is DPO with beta / L.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: reward per nat of mean log-ratio; a mean is small, so it is far above DPO's.
    """
    chosen = policy.chosen.mean() - reference.chosen.mean()
    rejected = policy.rejected.mean() - reference.rejected.mean()
    return -logsigmoid(beta * (chosen - rejected))
