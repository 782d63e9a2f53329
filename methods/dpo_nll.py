"""DPO + NLL: DPO with supervised training on the chosen answer added."""

import math
from typing import Literal

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2404.19733 (Iterative RPO) and arXiv:2405.16436 (RPO); huggingface/trl"
    " trl/trainer/dpo_trainer.py (loss types sigmoid and sft) @f2cd577",
    formula="-log sigmoid(beta * (h_w - h_l)) - alpha * s_w / (mean of L_w over the step);"
    " reduction mean: - alpha * a_w",
    disagreements=(
        "TRL's NLL, the form that was read, is the mean over all chosen tokens of a batch; "
        '`reduction="mean"` divides each answer by its own length.',
        "alpha is 1 for Iterative RPO, the default here, and 0.005 for RPO.",
        "TRL's batch is a micro-batch; here a step is all pairs of an optimizer step.",
    ),
    # alpha: RPO 0.005, Iterative RPO 1.
    grid={"beta": (0.01, 0.1, 0.5), "alpha": (0.005, 0.2, 1.0)},
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)"},
    coupled=lambda s: s["reduction"] == "tokens" and s["alpha"] > 0,
    at_reference=lambda s: None if s["alpha"] else math.log(2),
)
def dpo_nll(
    policy: PairLogProbs,
    reference: PairLogProbs,
    *,
    beta: float = 0.1,
    alpha: float = 1.0,
    reduction: Literal["tokens", "mean"] = "tokens",
) -> PerPair:
    """DPO + NLL: DPO's loss per pair plus the chosen answer's negative log-likelihood, in nats.

    The default is the mean over all chosen tokens of the step, as in TRL: a pair's part in it is
    its summed NLL over the mean length of the step's chosen answers. Through that length alone
    the pairs are coupled. The prompt does not count.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: reward per nat of log-ratio.
        alpha: weight of the NLL per token; at 0 this is DPO.
        reduction: how the NLL averages: "tokens", over all chosen tokens of the step, so that a
            long answer weighs more; "mean", over the tokens of each answer.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    length = policy.chosen.length.mean() if reduction == "tokens" else policy.chosen.length
    return -logsigmoid(beta * (chosen - rejected)) - alpha * policy.chosen.total() / length
