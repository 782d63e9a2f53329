"""ORPO: fine-tuning on the chosen answer, with a penalty on the odds of the rejected one."""

from typing import Literal

import torch
from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method


@method(
    source="arXiv:2403.07691; xfactlab/orpo src/orpo_trainer.py @208d2d6; huggingface/trl"
    " trl/experimental/orpo/orpo_trainer.py:673-705,803,851 @f2cd577",
    formula="-nll * s_w / (mean of L_w over the step) - lambda_ * log sigmoid(odds_w - odds_l),"
    " odds = a - log(1 - exp(a)); reduction mean: -nll * a_w for the first term",
    disagreements=(
        "The likelihood term of TRL, and of the authors' code by default, covers prompt and "
        "answer; here it covers the answer, as theirs does with `disable_prompt_loss`.",
        "The weight of the odds is `alpha` in the authors' code (argument 1.0, scripts 0.1), "
        "`beta` in TRL (0.1) and lambda in the paper.",
        "Their code averages the likelihood over all chosen tokens of a micro-batch, here of a "
        'step; `reduction="mean"` averages it over each answer.',
    ),
    # The sweep of SimPO's comparison as it is recalled, not read again.
    grid={"lambda_": (0.1, 0.5, 1.0, 2.0)},
    bounds={"lambda_": "[0, inf)", "nll": "[0, inf)"},
    coupled=lambda s: s["reduction"] == "tokens" and s["nll"] > 0,
)
def orpo(
    policy: PairLogProbs,
    *,
    lambda_: float = 0.1,
    nll: float = 1.0,
    reduction: Literal["tokens", "mean"] = "tokens",
) -> PerPair:
    """ORPO: likelihood of the chosen answer and log-odds against the rejected one, in nats.

    One loss per pair. The odds are those of the geometric mean of the token probabilities. The
    likelihood term covers response tokens only; the authors' default covers the prompt too. At a
    mean log-prob of 0 the odds are infinite, so one above -1e-7 is taken for -1e-7.

    Args:
        policy: log-probs of the policy.
        lambda_: weight of the odds term.
        nll: weight of the likelihood term; 0 leaves only the odds.
        reduction: how the likelihood term averages: "tokens", over all chosen tokens of the step,
            so that a long answer weighs more; "mean", over the tokens of each answer.
    """
    length = policy.chosen.length
    fit = -policy.chosen.total() / {"tokens": length.mean(), "mean": length}[reduction]
    return nll * fit - lambda_ * logsigmoid(_log_odds(policy.chosen) - _log_odds(policy.rejected))


def _log_odds(answer: LogProbs) -> PerPair:
    """log(p / (1 - p)) of the geometric mean p of the token probabilities."""
    mean = answer.mean().clamp_max(-1e-7)
    return mean - (-torch.expm1(mean)).log()
