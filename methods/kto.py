"""KTO: every answer is judged alone, against how far the policy has moved on average."""

from typing import Literal

import torch

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2402.01306; huggingface/trl trl/trainer/kto_trainer.py:1548-1592 @f2cd577;"
    " ContextualAI/HALOs train/trainers.py:851-940 @4831988",
    formula="(lambda_d * sigmoid(-beta * (h_w - sg[z])) + lambda_u * sigmoid(beta * (h_l - sg[z])))"
    " / 2, z = max(0, mean of h over the mismatched answers of the step); reduction sum: without"
    " the / 2",
    disagreements=(
        "TRL, followed here, averages all mismatched log-ratios for z; HALOs leaves out those that "
        "are exactly 0.",
        "z is that of a micro-batch of all processes in TRL and HALOs; here it is that of a step.",
        "TRL's former `kto_pair`, HALOs' simple form and alpha-DPO's `kto` take the log-ratios of "
        "the pairs' own answers for z: older and different losses.",
    ),
    # beta: the sweep of SimPO's comparison as it is recalled, not read again; lambda_d: TRL
    # advises 1 to 1.33 of lambda_u where there are as many chosen as rejected answers.
    grid={"beta": (0.01, 0.05, 0.1), "lambda_d": (1.0, 1.33)},
    bounds={"beta": "(0, inf)", "lambda_d": "(0, inf)", "lambda_u": "(0, inf)"},
    coupled=True,
    at_reference=lambda s: (s["lambda_d"] + s["lambda_u"]) / (4 if s["reduction"] == "mean" else 2),
)
def kto(
    policy: PairLogProbs,
    reference: PairLogProbs,
    mismatched: tuple[PerPair, PerPair],
    *,
    beta: float = 0.1,
    lambda_d: float = 1.0,
    lambda_u: float = 1.0,
    reduction: Literal["mean", "sum"] = "mean",
) -> PerPair:
    """KTO: one minus the value of the chosen and of the rejected answer, one loss per pair.

    Each of the two terms lies between 0 and its weight, and is half of it at the reference. Their
    point of reference z is an estimate of the KL divergence: the mean log-ratio of answers to
    other prompts, over chosen and rejected ones of the whole step, and never below 0. No gradient
    passes it.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        mismatched: log-ratios in nats of another prompt's chosen and rejected answers.
        beta: reward per nat of log-ratio.
        lambda_d: weight of the chosen, "desirable" answers.
        lambda_u: weight of the rejected, "undesirable" answers.
        reduction: "mean" of the pair's two terms, as the sources average over answers; or "sum".
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    z = torch.cat(mismatched).detach().mean().clamp_min(0)
    # 1 - sigmoid(x) is sigmoid(-x), which does not round to 0 so soon.
    desirable = lambda_d * torch.sigmoid(-beta * (chosen - z))
    undesirable = lambda_u * torch.sigmoid(beta * (rejected - z))
    return (desirable + undesirable) / (2 if reduction == "mean" else 1)
