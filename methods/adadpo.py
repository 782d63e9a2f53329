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
    " balance_space ratio: exp(h_w / L_w - h_l / L_l)",
    status="derived",
    stop_gradient="the coefficient of the chosen answer",
    disagreements=(
        "Which space the paper balances in by default is unresolved: the digest prints the ratio "
        "of policy probabilities, followed here as nearest to the abstract; the script takes "
        "those of policy to reference and calls that the paper's default: "
        '`balance_space="ratio"`.',
        "Whether the exponent multiplies the ratio or is a power of it is unknown: a power here. "
        "The paper fixes it at 1 and leaves others to future work.",
        "The paper's table of forms for other losses was not seen: all but the form dpo are "
        "derived from the same balance of gradients.",
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
    at_reference=_at_reference,
    only_for={"reference": {"form": ("dpo", "rdpo", "ipo"), "balance_space": ("ratio",)}},
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
    form: Literal["dpo", "simpo", "rdpo", "ipo", "cpo", "orpo"] = "dpo",
    gamma: float = 1.0,
    alpha: float = 0.05,
    tau: float = 0.1,
    lambda_: float = 0.1,
    nll: float = 1.0,
) -> PerPair:
    """AdaDPO: one loss per pair, in nats, with a coefficient c on the chosen answer's side.

    DPO's slope by the probability of an answer is in inverse proportion to that probability, so
    that the rejected answer is pushed harder once the chosen one is likelier. With c, the ratio of
    the two, both slopes are equal. No gradient passes c. At an `exponent` of 0 this is the loss
    that `form` names; between equally likely answers, or in the ratio space at the reference, the
    form "dpo" is DPO.

    The other forms are derived, not verified: c times the chosen answer's mean log-prob (SimPO),
    log-ratio (R-DPO, IPO, over the answer), log-prob (CPO), log-odds (ORPO). The likelihood terms
    of CPO and ORPO are means over each chosen answer, not over all tokens of the step, so that
    pairs do not hang together.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference; only read by the forms "dpo", "rdpo" and "ipo" and
            in the ratio space.
        beta: reward per nat of what the form compares; "simpo" wants 2 or more.
        balance_space: probabilities whose slopes are balanced: the policy's, or their ratios to
            the reference's.
        ceiling: largest coefficient; None for none but exp(30).
        exponent: power of the ratio; 0 leaves the loss unbalanced.
        per_token: geometric means over tokens; off, the original ratio of whole answers, which
            leaves a likely long answer at the ceiling and an unlikely one without any gradient.
        form: the loss that is balanced.
        gamma: SimPO's target reward gap.
        alpha: R-DPO's price of a token.
        tau: IPO's strength of the pull to the reference.
        lambda_: weight of ORPO's odds term.
        nll: weight of the likelihood term of CPO and ORPO, per token.
    """
    base = reference if balance_space == "ratio" else None
    balance = _log_balance(policy, base, per_token, odds=form == "orpo")
    limit = BOUNDED if ceiling is None else min(math.log(ceiling), BOUNDED)
    c = (exponent * balance).clamp_max(limit).exp().detach()
    chosen, rejected = _compared(policy, reference, form)
    gap, fit = c * chosen - rejected, -policy.chosen.mean()
    match form:
        case "simpo":
            return -logsigmoid(beta * gap - gamma)
        case "rdpo":
            longer = policy.chosen.length - policy.rejected.length
            return -logsigmoid(beta * gap + alpha * longer)
        case "ipo":
            return (gap - 1 / (2 * tau)).square()
        case "cpo":
            return nll * fit - logsigmoid(beta * gap)
        case "orpo":
            return nll * fit - lambda_ * logsigmoid(gap)
    return -logsigmoid(beta * gap)


def _compared(policy: PairLogProbs, reference: PairLogProbs, form: str) -> tuple[PerPair, PerPair]:
    """What a form compares of the chosen and of the rejected answer."""
    chosen, rejected = policy.chosen, policy.rejected
    match form:
        case "simpo":
            return chosen.mean(), rejected.mean()
        case "cpo":
            return chosen.total(), rejected.total()
        case "orpo":
            return _mean(chosen) - _log_rest(chosen), _mean(rejected) - _log_rest(rejected)
    base = reference.chosen.total(), reference.rejected.total()
    return chosen.total() - base[0], rejected.total() - base[1]


def _log_balance(
    policy: PairLogProbs, base: PairLogProbs | None, per_token: bool, odds: bool
) -> PerPair:
    """Log of the ratio of both answers' probabilities, or of their ratios to those of a base.

    The slope of log-odds by p is that of log p over 1 - p: odds take the ratio of p * (1 - p).
    """
    chosen, rejected = policy.chosen.total(), policy.rejected.total()
    if base is not None:
        chosen, rejected = chosen - base.chosen.total(), rejected - base.rejected.total()
    if per_token:
        chosen, rejected = chosen / policy.chosen.length, rejected / policy.rejected.length
    rest = _log_rest(policy.chosen) - _log_rest(policy.rejected) if odds else 0.0
    return chosen - rejected + rest


def _mean(answer: LogProbs) -> PerPair:
    """Mean log-prob per token, held below 0, where the odds would be infinite."""
    return answer.mean().clamp_max(-1e-7)


def _log_rest(answer: LogProbs) -> PerPair:
    """log(1 - p) of the geometric mean p of the token probabilities."""
    return (-torch.expm1(_mean(answer))).log()
