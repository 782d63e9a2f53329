"""BCO: a classifier of single answers whose logit is the reward minus the mean reward so far."""

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, State, method


@method(
    source="arXiv:2404.04656; huggingface/trl trl/experimental/bco/bco_trainer.py:1219-1273, and"
    " for shift none trl/trainer/dpo_trainer.py:1480 (bco_pair) @f2cd577",
    formula="(-log sigmoid(beta * h_w - sg[delta]) - log sigmoid(sg[delta] - beta * h_l)) / 2,"
    " delta the mean of all beta * h of all steps so far; shift none: delta = 0; reduction sum:"
    " without the / 2",
    stop_gradient="the shift",
    disagreements=(
        "TRL's trainer for single answers has the running shift and the mean over answers, the "
        'defaults here; its `bco_pair` is `shift="none"`, `reduction="sum"`.',
        "TRL 1.16 has that trainer no longer: the source is an earlier commit.",
        "TRL's default beta is 0.1; the default here is the paper's as TRL's index cites it.",
        "TRL moves the shift per micro-batch and not in evaluation; here a step is all pairs of "
        "an optimizer step, and in evaluation the held-out pairs are counted in and then "
        "forgotten.",
        "TRL can weigh rejected answers by a density ratio of prompts, from their embeddings and "
        "a classifier of them: this is left out.",
        "TRL's paper index prints a formula for bco_pair that is DPO's; its code is followed.",
    ),
    # 0.01: the paper; 0.1: TRL's default.
    grid={"beta": (0.001, 0.01, 0.1)},
    bounds={"beta": "(0, inf)"},
    coupled=lambda s: s["shift"] == "running",
    initial={"mean": 0.0, "count": 0.0},
    # From the initial state, as at the start of a run: a shift that has moved stays where it is.
    at_reference=lambda s: math.log(2) * (2 if s["reduction"] == "sum" else 1),
    only_for={"state": {"shift": ("running",)}},
)
def bco(
    policy: PairLogProbs,
    reference: PairLogProbs,
    state: State | None,
    *,
    beta: float = 0.01,
    shift: Literal["running", "none"] = "running",
    reduction: Literal["mean", "sum"] = "mean",
) -> PerPair | tuple[PerPair, State]:
    """BCO: mean cross-entropy per pair, in nats, of telling chosen from rejected one by one.

    The logit of an answer is its implicit reward minus a shift: the mean reward of all answers of
    all steps, this one included, each with the same weight. No gradient passes the shift. The
    optional weight of rejected answers is left out: it is a density ratio of the prompts of chosen
    to those of rejected answers, which in pairs are the same.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        state: mean reward so far and the number of answers that it is of; None without a shift.
        beta: reward per nat of log-ratio.
        shift: "running", or "none" for a shift of 0.
        reduction: "mean" over the two answers of a pair, or their "sum".

    Returns:
        One loss per pair, in nats, and the next state where there is a shift.
    """
    chosen = beta * (policy.chosen.total() - reference.chosen.total())
    rejected = beta * (policy.rejected.total() - reference.rejected.total())
    after = None  # without a shift
    if state is not None:
        after = _moved(state, torch.cat((chosen, rejected)).detach().double())
    delta = after["mean"].to(chosen) if after else 0.0
    losses = -logsigmoid(chosen - delta) - logsigmoid(delta - rejected)
    losses = losses / 2 if reduction == "mean" else losses
    return (losses, after) if after else losses


def _moved(state: State, rewards: Tensor) -> State:
    """Mean and count with these rewards counted in."""
    mean, count = state["mean"].to(rewards), state["count"].to(rewards) + len(rewards)
    return {"mean": mean + (rewards - mean).sum() / count, "count": count}
