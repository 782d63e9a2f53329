"""DPO-Shift: DPO in which the rejected answer counts for less, by a factor or a schedule."""

import math
from typing import Literal

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, RequestError, State, method

MOVING = ("increasing", "decreasing")


@method(
    source="arXiv:2502.07599; Meaquadddd/DPO-Shift scripts/dposhift_trainer.py:1093-1143 @52eebac",
    formula="-log sigmoid(beta * (h_w - f * h_l)), f = lambda_ (fixed), or from lambda_min to"
    " lambda_max (increasing) or back (decreasing) in equal parts of `steps` steps",
    disagreements=(
        "The authors' class has lambda 1, which is DPO, and beta 0.1; their recipes, followed "
        "here, have 0.7 and 0.01.",
        "The authors' schedules end with the run, by a change to transformers; a loss here does "
        "not know how long the run is: `steps` says it, and the factor then stays where it is.",
    ),
    # lambda_: the recipes' 0.7, and the authors' released answers.
    grid={"beta": (0.01, 0.1), "lambda_": (0.55, 0.65, 0.7, 0.75, 0.85, 0.95)},
    bounds={
        "beta": "(0, inf)",
        "lambda_": "(0, 1]",
        "lambda_min": "(0, 1]",
        "lambda_max": "(0, 1]",
        "steps": "[1, inf)",
    },
    initial={"step": 0.0},
    only_for={
        "lambda_": {"schedule": ("fixed",)},
        **{key: {"schedule": MOVING} for key in ("state", "lambda_min", "lambda_max", "steps")},
    },
    at_reference=math.log(2),
)
def dpo_shift(
    policy: PairLogProbs,
    reference: PairLogProbs,
    state: State | None,
    *,
    beta: float = 0.01,
    lambda_: float = 0.7,
    schedule: Literal["fixed", "increasing", "decreasing"] = "fixed",
    lambda_min: float = 0.5,
    lambda_max: float = 1.0,
    steps: int = 500,
) -> PerPair | tuple[PerPair, State]:
    """DPO-Shift: DPO's loss per pair, in nats, with the rejected log-ratio times a factor f.

    The smaller f, the less the loss gains by making the rejected answer unlikely, and the more
    the chosen one keeps. f = 1 is DPO.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        state: steps taken so far; None without a schedule.
        beta: reward per nat of log-ratio.
        lambda_: the factor of "fixed".
        schedule: "fixed", or a line from `lambda_min` to `lambda_max` ("increasing") or from
            `lambda_max` to `lambda_min` ("decreasing"). The first step is at the start of it.
        lambda_min: least factor of the schedules.
        lambda_max: greatest factor of the schedules.
        steps: number of steps after which a schedule has arrived. The default is an arbitrary
            one: set it to the length of the run.

    Returns:
        One loss per pair, in nats; with a schedule also the next state.

    Raises:
        RequestError: the least factor is above the greatest.
    """
    if lambda_min > lambda_max:
        raise RequestError(f"dpo_shift: {lambda_min=} is above {lambda_max=}")
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    if state is None:  # schedule fixed
        return -logsigmoid(beta * (chosen - lambda_ * rejected))
    way = (lambda_max - lambda_min) * (state["step"] / steps).clamp_max(1.0)
    factor = lambda_min + way if schedule == "increasing" else lambda_max - way
    losses = -logsigmoid(beta * (chosen - factor.to(chosen) * rejected))
    return losses, {"step": state["step"] + 1}
