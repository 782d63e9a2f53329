"""AdaDPO: DPO whose beta for the chosen answer balances the two answers' gradients."""

import math
from typing import Literal

import torch
from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method

BOUNDED = 30.0
"""Log of the largest coefficient without a ceiling: in single precision even its square times the
square of a log-ratio of 1e4 is finite."""


def _at_reference(s: dict[str, float | str]) -> float | None:
    """DPO's or IPO's loss for log-ratios of 0, which no coefficient changes."""
    if s["form"] == "ipo":
        return 1 / (2 * float(s["tau"])) ** 2
    dpo = s["form"] == "dpo" or (s["form"] == "rdpo" and s["alpha"] == 0)
    return math.log(2) if dpo else None


@method(
    source="arXiv:2605.28440, through a public digest and a third party's training script; no"
    " official code",
    formula="-log sigmoid(beta * (sg[c] * h_w - h_l)), c = min(exp(a_w - a_l)^exponent, ceiling);"
    " balance_space ratio: exp(h_w / L_w - h_l / L_l); the other forms are those losses with sg[c]"
    " times their term of the chosen answer, and orpo takes p * (1 - p) for p = exp(a) in c",
    status="derived",
    stop_gradient="the coefficient of the chosen answer",
    disagreements=(
        "Which space the paper balances in by default is unresolved: the digest prints the ratio "
        "of policy probabilities, followed here as nearest to the abstract; the script takes "
        "those of policy to reference and calls that the paper's default: "
        '`balance_space="ratio"`.',
        "Whether the exponent multiplies the ratio or is a power of it is unknown: a power here; "
        "the paper fixes it at 1.",
        "The paper's table of forms for other losses was not seen: all but the form dpo are "
        "derived from the same balance of gradients.",
        "The best beta is unknown: the default is DPO's.",
    ),
    # beta: the paper's sweep; the ceiling: where the digest calls it stable.
    grid={"beta": (0.005, 0.01, 0.05, 0.1), "ceiling": (1.5, 2.0, 2.5)},
    bounds={
        "beta": "(0, inf)",
        "ceiling": "(0, inf)",
        "exponent": "[0, inf)",
        "gamma": "[0, inf)",
        "alpha": "[0, inf)",
        "tau": "(0, inf)",
        "lambda_": "[0, inf)",
        "nll": "[0, inf)",
    },
    coupled=lambda s: s["form"] in ("cpo", "orpo") and s["nll"] > 0,
    at_reference=_at_reference,
    direction=lambda s: "at_reference" if s["form"] == "ipo" else "everywhere",
    only_for={
        "reference": {"form": ("dpo", "rdpo", "ipo"), "balance_space": ("ratio",)},
        "beta": {"form": ("dpo", "rdpo", "simpo", "cpo")},
        # What the other forms would then balance is not derived.
        "balance_space": {"form": ("dpo", "rdpo", "ipo", "simpo", "cpo")},
        "per_token": {"form": ("dpo", "rdpo", "ipo", "cpo")},
        "gamma": {"form": ("simpo",)},
        "alpha": {"form": ("rdpo",)},
        "tau": {"form": ("ipo",)},
        "lambda_": {"form": ("orpo",)},
        "nll": {"form": ("cpo", "orpo")},
    },
)
def adadpo(
    policy: PairLogProbs,
    reference: PairLogProbs,
    *,
    beta: float = 0.1,
    balance_space: Literal["policy", "ratio"] = "policy",
    ceiling: float | None = 2.0,
    exponent: float = 1.0,
    per_token: bool = True,
    form: Literal["dpo", "rdpo", "ipo", "simpo", "cpo", "orpo"] = "dpo",
    gamma: float = 1.0,
    alpha: float = 0.1,
    tau: float = 0.1,
    lambda_: float = 0.1,
    nll: float = 1.0,
) -> PerPair:
    """AdaDPO: one loss per pair, in nats, with a coefficient c on the chosen answer's side.

    DPO's slope by the probability of an answer is in inverse proportion to that probability, so
    that the rejected answer is pushed harder once the chosen one is likelier. With c, the ratio of
    the two, both slopes are equal: per token, and while the ceiling does not bind. No gradient
    passes c. At an `exponent` of 0 this is the loss that `form` names, for "ipo" that of
    `reduction="sum"`; between equally likely answers, or in the ratio space at the reference, the
    form "dpo" is DPO.

    The other forms are derived, not verified: c times the chosen answer's log-ratio (R-DPO, and
    IPO, over the answer), mean log-prob (SimPO), log-prob (CPO), log-odds (ORPO). The likelihood
    terms of CPO and ORPO are not balanced: the mean over all chosen tokens of the step.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference; only read by the forms "dpo", "rdpo" and "ipo" and
            in the ratio space.
        beta: reward per nat of what the form compares; "simpo" wants 2 or more.
        balance_space: probabilities whose slopes are balanced: the policy's, or their ratios to
            the reference's, which is not derived for "orpo".
        ceiling: largest coefficient; None for none but exp(30).
        exponent: power of the ratio; 0 leaves the loss unbalanced.
        per_token: geometric means over tokens; off, the original ratio of whole answers, which
            leaves a likely long answer at the ceiling and an unlikely one without any gradient,
            and is not derived for the means of "simpo" and "orpo".
        form: the loss that is balanced.
        gamma: SimPO's target reward gap.
        alpha: R-DPO's price of a token.
        tau: IPO's strength of the pull to the reference.
        lambda_: weight of ORPO's odds term.
        nll: weight of the likelihood term of CPO and ORPO, per token.
    """
    limit = BOUNDED if ceiling is None else min(math.log(ceiling), BOUNDED)
    log_rho = _log_balance(policy, reference if balance_space == "ratio" else None, per_token)
    if form == "orpo":  # the slope of log-odds by p is that of log p over 1 - p
        log_rho = log_rho + _log_rest(policy.chosen) - _log_rest(policy.rejected)
    c = (exponent * log_rho).clamp_max(limit).exp().detach()
    s_w, s_l = policy.chosen.total(), policy.rejected.total()
    length = policy.chosen.length
    match form:
        case "dpo":
            return -logsigmoid(beta * _gap(c, policy, reference))
        case "rdpo":
            longer = length - policy.rejected.length
            return -logsigmoid(beta * _gap(c, policy, reference) + alpha * longer)
        case "ipo":
            return (_gap(c, policy, reference) - 1 / (2 * tau)).square()
        case "simpo":
            return -logsigmoid(beta * (c * policy.chosen.mean() - policy.rejected.mean()) - gamma)
        case "cpo":
            return -logsigmoid(beta * (c * s_w - s_l)) - nll * s_w / length.mean()
        case "orpo":
            gap = c * _log_odds(policy.chosen) - _log_odds(policy.rejected)
            return -lambda_ * logsigmoid(gap) - nll * s_w / length.mean()


def _gap(c: PerPair, policy: PairLogProbs, reference: PairLogProbs) -> PerPair:
    """The gap of log-ratios, c * h_w - h_l."""
    chosen = policy.chosen.total() - reference.chosen.total()
    return c * chosen - (policy.rejected.total() - reference.rejected.total())


def _log_balance(policy: PairLogProbs, base: PairLogProbs | None, per_token: bool) -> PerPair:
    """Log of the ratio of both answers' probabilities, or of their ratios to those of a base."""
    chosen, rejected = policy.chosen.total(), policy.rejected.total()
    if base is not None:
        chosen, rejected = chosen - base.chosen.total(), rejected - base.rejected.total()
    if per_token:
        chosen, rejected = chosen / policy.chosen.length, rejected / policy.rejected.length
    return chosen - rejected


def _log_odds(answer: LogProbs) -> PerPair:
    """log(p / (1 - p)) of the geometric mean p of the token probabilities."""
    return _mean(answer) - _log_rest(answer)


def _log_rest(answer: LogProbs) -> PerPair:
    """log(1 - p) of the geometric mean p of the token probabilities."""
    return (-torch.expm1(_mean(answer))).log()


def _mean(answer: LogProbs) -> PerPair:
    """Mean log-prob per token, held below 0, where the odds would be infinite."""
    return answer.mean().clamp_max(-1e-7)
