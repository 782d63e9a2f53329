"""AMaPO: no reference; a pair below the step's average gap gets a margin, one above it none."""

from typing import Literal

import torch
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2511.09385; Shiroha-Offical/AMaPO scripts/amapo_trainer.py:575-621 @c6c89cc",
    formula="-log sigmoid(beta * u - sg[m]), m = beta * exp((mean - u) / std * mean) where u < mean"
    " else 0, mean and std of u over the step; form paper: m = beta * exp(g) where g > 0 else 0,"
    " g = beta * (mean - u) / std * mean",
    stop_gradient="the margin, mean and deviation of the step included",
    disagreements=(
        "The exponent has the mean of u in the authors' code, followed here, and the mean of "
        'beta * u in the paper, which makes it beta times larger: `form="paper"`.',
        "Where the mean is negative, as it often is at first, the code still gives the pairs below "
        "it a margin, under beta. The paper's max(., 0) gives the pairs above it one of at least "
        "beta, and those below it none.",
        "beta for Llama-3-8B-Base is 2.5 in the README and 3.0 in its configuration.",
        "The authors' mean and deviation are of a micro-batch from all devices (8 pairs as they "
        "train, 4 for Llama-3-8B-Base); here they are of all pairs of an optimizer step.",
        "The authors' code computes a mixture with a fine-tuning term, `sft_weight`, and drops "
        "it: there is none here.",
    ),
    # The README's table and the configuration that it contradicts.
    grid={"beta": (2.0, 2.5, 3.0)},
    bounds={"beta": "(0, inf)", "cap": "[0, inf)"},
    coupled=True,
)
def amapo(
    policy: PairLogProbs,
    *,
    beta: float = 2.0,
    form: Literal["code", "paper"] = "code",
    cap: float | None = 80.0,
) -> PerPair:
    """AMaPO: SimPO's loss per pair, in nats, with a margin for pairs below the step's average.

    A pair whose gap of mean log-probs is below the step's average must win by beta * exp(z * mean),
    z its distance below in standard deviations; any other pair is SimPO's with gamma 0. No gradient
    passes the margin. It jumps at the average from beta to 0.

    The authors divide by the deviation as it is. Gaps that are exactly equal have a margin of 0
    there all the same, for none is below the average; one pair alone has a NaN deviation. Here both
    have a margin of 0. The paper's form is derived from a summary of it, not verified.

    Args:
        policy: log-probs of the policy.
        beta: reward per nat of mean log-prob, and the scale of the margin.
        form: "code" as the authors' code, or "paper" as the formula in print.
        cap: largest exponent; None as the authors, whose margin can then be infinite: here it is
            the largest number of the precision.
    """
    gap = policy.chosen.mean() - policy.rejected.mean()
    fixed = gap.detach().double()
    # Rounding could lift the mean of equal gaps above each of them.
    mean = fixed.mean().clamp(fixed.min(), fixed.max())
    std = ((fixed - mean).square().sum() / max(len(fixed) - 1, 1)).sqrt()
    exponent = (mean - fixed) / std * mean * (beta if form == "paper" else 1.0)
    behind = exponent > 0 if form == "paper" else fixed < mean
    exponent = exponent if cap is None else exponent.clamp_max(cap)
    margin = (beta * exponent.exp()).where(behind, 0.0).clamp_max(torch.finfo(gap.dtype).max)
    return -logsigmoid(beta * gap - margin.to(gap))
