"""CPO: DPO without a reference, held back by the likelihood of the chosen answer."""

from typing import Literal

import torch
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2401.08417; huggingface/trl trl/experimental/cpo/cpo_trainer.py:677-748,841-849,"
    "889 @f2cd577; fe1ixxu/ALMA @10360c3 (no longer CPO)",
    formula="-log sigmoid(beta * (s_w - s_l)) - alpha * s_w / (mean of L_w over the step);"
    " reduction mean: - alpha * a_w; sum: - alpha * s_w",
    disagreements=(
        "TRL, followed here, averages the likelihood over all chosen tokens of a micro-batch, "
        'here of a step; `reduction="sum"` takes the log-prob of the whole answer.',
        "The authors' repository, ALMA, has moved on from CPO: its code multiplies s_l by an "
        "adaptive penalty.",
    ),
    # The sweep of SimPO's comparison as it is recalled, not read again; it held alpha at 1.
    grid={"beta": (0.01, 0.05, 0.1), "alpha": (0.5, 1.0)},
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)"},
    coupled=lambda s: s["reduction"] == "tokens" and s["alpha"] > 0,
)
def cpo(
    policy: PairLogProbs,
    *,
    beta: float = 0.1,
    alpha: float = 1.0,
    reduction: Literal["tokens", "mean", "sum"] = "tokens",
) -> PerPair:
    """CPO: preference and likelihood of the chosen answer, one loss per pair, in nats.

    The preference term is DPO's with a uniform reference. A pair's share of the mean over tokens
    depends on the lengths of the other pairs of the step: the mean of the shares over pairs is
    the negative log-prob of all chosen tokens of the step by their number.

    Args:
        policy: log-probs of the policy.
        beta: reward per nat of log-prob.
        alpha: weight of the likelihood term.
        reduction: how the likelihood term averages: "tokens", over all chosen tokens of the step,
            so that a long answer weighs more; "mean", over the tokens of each answer; "sum", not
            at all.
    """
    length = policy.chosen.length
    per = {"tokens": length.mean(), "mean": length, "sum": torch.ones_like(length)}[reduction]
    nll = -policy.chosen.total() / per
    return -logsigmoid(beta * (policy.chosen.total() - policy.rejected.total())) + alpha * nll
