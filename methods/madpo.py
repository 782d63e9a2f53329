"""MADPO: DPO in which a reward model's margin between the answers sets the weight of a pair."""

import math
from typing import Literal

import torch
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2510.05342; sirano1004/Margin-Apative-Direct-Preference-Optimization"
    " utils/loss_functions.py:85-127 @306779b",
    formula="-w(margin) * log sigmoid(beta * (h_w - h_l)), w(m) = sigmoid(c(|m|) * m) / sigmoid(m)"
    " for m > -tau, else 1, c(m) = c_min + (c_max - c_min) / (1 + (c_max - 1) / (1 - c_min) *"
    " exp(lambda_ * (m - tau))); form amplify: max(c, 1) for c; form regularise: min(c, 1)",
    disagreements=(
        "The code is of the paper's first version: whether the second changed the weight is "
        "unknown, and so is whether either prints the weight of 1 for margins up to -tau.",
        "c depends on the size of the margin and the ratio on its sign too: so in the code, while "
        "the abstract does not say it.",
        "The authors' constructor has c_max 2, c_min 1/2, tau 2: the defaults here. Their notebook "
        "has tau log(999), and their README's table fits c_max 4, c_min 1/4, tau log(999).",
        "The ablations that the authors plot have neither code nor formula: `amplify` and "
        "`regularise` are derived.",
    ),
    # beta: DPO's, for the authors tuned c alone. The others are the sweeps of their figures: c_max
    # with c_min = 1 / c_max at their tau of "7", which is log(999); tau at c_max 2.
    grid={
        "beta": (0.005, 0.01, 0.05, 0.1),
        "c_max": (2.0, 3.0, 4.0),
        "c_min": (1 / 2, 1 / 3, 1 / 4),
        "tau": (2.0, 4.0, math.log(999), 10.0),
    },
    bounds={
        "beta": "(0, inf)",
        "c_max": "[1, inf)",
        "c_min": "(0, 1]",
        "lambda_": "(0, inf)",
        "tau": "[0, inf)",
    },
)
def madpo(
    policy: PairLogProbs,
    reference: PairLogProbs,
    margin: PerPair,
    *,
    beta: float = 0.1,
    c_max: float = 2.0,
    c_min: float = 0.5,
    lambda_: float = 1.0,
    tau: float = 2.0,
    form: Literal["full", "amplify", "regularise"] = "full",
) -> PerPair:
    """MADPO: DPO's loss per pair, in nats, times a weight that depends on the margin alone.

    Over both labels of a pair, drawn as the reward model says, the minimum is where the policy's
    reward gap is c(|margin|) * margin, for margins within `tau` of zero. No gradient passes the
    weight. The defaults are those of the authors' constructor; the table in their README was
    matched by value to c_max 4, c_min 1/4, tau log(999).

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        margin: reward of the chosen minus reward of the rejected answer by a frozen reward model,
            in nats; negative where the model disagrees with the label.
        beta: reward per nat of log-ratio.
        c_max: upper limit of c, which margin 0 stays below; at exactly 1 the loss is DPO's.
        c_min: what c falls to at large margins; at exactly 1 the loss is DPO's.
        lambda_: how steeply c falls, per nat of margin.
        tau: margin at which c is 1, in nats.
        form: "amplify" replaces c by max(c, 1) and "regularise" by min(c, 1). At a negative margin
            within `tau` c is above 1 and makes the weight smaller: there "amplify" weighs a pair
            down as "full" does, and "regularise" leaves it at 1. The authors plot such ablations
            without code or formula: these two forms are derived, not verified.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    weight = torch.ones_like(margin)
    if c_max > 1 > c_min:  # at 1 the formula is 0/0; its limit is a weight of 1
        h = margin.detach()
        c = _factor(h.abs(), c_max, c_min, lambda_, tau)
        c = {"full": c, "amplify": c.clamp_min(1.0), "regularise": c.clamp_max(1.0)}[form]
        ratio = (logsigmoid(c * h) - logsigmoid(h)).exp()
        # c takes |h| and the ratio the signed h. Below -tau, where c < 1, the ratio would grow like
        # exp((1 - c) |h|): there the weight stays at the 1 that it reaches at -tau.
        weight = ratio.where(h > -tau, weight)
    return -weight * logsigmoid(beta * (chosen - rejected))


def _factor(margin: PerPair, c_max: float, c_min: float, lambda_: float, tau: float) -> PerPair:
    """c(m): falls from below c_max at 0 through 1 at tau to c_min."""
    steepness = (c_max - 1) / (1 - c_min) * (lambda_ * (margin - tau)).exp()
    return c_min + (c_max - c_min) / (1 + steepness)
