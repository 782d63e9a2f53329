"""Beta-DPO: DPO whose beta follows the step's average gap, on pairs that are no outliers."""

import math
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, State, method


@method(
    source="arXiv:2407.08639; junkangwu/beta-DPO trainers.py:73-95,242-263,332-338 @1629047",
    formula="-log sigmoid(sg[b] * D) * N / n for the n kept of N pairs, else 0, D = h_w - h_l,"
    " b = max(beta_min, beta * (1 + alpha * (mean of the kept D - m))), n = rho * N drawn without"
    " replacement with weights exp(-((D - m) / s)^2 / 2), running mean m and deviation s from"
    " 0, in statistics corrected both over 1 - decay^steps",
    stop_gradient="beta as it is used, and which pairs are kept",
    disagreements=(
        "Whether the paper's gap holds beta is ambiguous. The authors' code, followed here, has "
        "D without it; the re-implementations of gamma-PO and MADPO have beta * D: their alpha a "
        "is an `alpha` of a * beta here.",
        "The authors' code keeps beta at 0.001 at least; the paper as others quote it has no such "
        "floor, nor has MADPO's re-implementation: beta can become negative there.",
        "The default, `corrected`, is not the authors' code.",
        "The authors' statistics start at 0 without correction, move per micro-batch and in "
        'evaluation, and are 0/0 while policy and reference are equal: `statistics="literal"` '
        "keeps the zero start alone; MADPO's re-implementation starts at 0 and 1.",
        "Each of the authors' processes draws its own kept pairs, so that beta differs between "
        "them; here one draw is for all pairs of a step.",
        "alpha is 0.6 in the README and 0 in the authors' configuration.",
        "oxRL's version has a beta for each pair and keeps all pairs.",
    ),
    grid={"beta": (0.01, 0.05, 0.1), "alpha": (0.2, 0.6), "rho": (0.8, 1.0)},
    bounds={
        "beta": "(0, inf)",
        "alpha": "[0, inf)",
        "rho": "(0, 1]",
        "decay": "[0, 1)",
        "epsilon": "(0, inf)",
        "beta_min": "(0, inf)",
    },
    coupled=True,
    initial={"mean": 0.0, "std": 0.0, "steps": 0.0},
    at_reference=math.log(2),
    only_for={"epsilon": {"statistics": ("corrected",)}},
)
def beta_dpo(
    policy: PairLogProbs,
    reference: PairLogProbs,
    state: State,
    rng: Generator,
    *,
    beta: float = 0.1,
    alpha: float = 0.6,
    rho: float = 0.8,
    decay: float = 0.9,
    statistics: Literal["corrected", "literal"] = "corrected",
    epsilon: float = 1e-3,
    beta_min: float = 1e-3,
) -> tuple[PerPair, State]:
    """Beta-DPO: DPO on the pairs whose gap is near the running mean, with one beta for the step.

    Beta is larger in a step whose kept pairs are further apart than pairs are on average. The
    losses of kept pairs are scaled by all over kept and those of the others are 0, so that their
    mean over the step is the mean over the kept ones. The running statistics are updated before
    use. No gradient passes beta. With `alpha` 0 and `rho` 1 this is DPO.

    The authors' statistics ("literal") start at 0 and are used as they are. The default
    ("corrected") is not the authors' code: it divides both averages by 1 - decay ** steps, and
    takes a spread below `epsilon` for `epsilon`. In both forms a step is all pairs of an optimizer
    step, evaluation moves nothing, and where the authors' code is not a number it goes on: a spread
    of exactly 0 draws evenly, one pair is kept at least, and a step of one pair, which has no
    spread, leaves the statistics alone; while there are none, the corrected form uses `beta`
    itself.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        state: running mean and standard deviation of the gap of log-ratios, in nats, and the
            number of steps that they hold.
        rng: where the kept pairs are drawn from.
        beta: reward per nat of log-ratio in an average step.
        alpha: relative rise of beta per nat of gap above the average; `a` in the authors' code.
        rho: share of the pairs that is kept.
        decay: share of the old average that a step keeps.
        statistics: "corrected", or "literal" as the authors' code.
        epsilon: least standard deviation of the corrected form, in nats.
        beta_min: least beta.

    Returns:
        One loss per pair, in nats, and the next state.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    gap = chosen - rejected
    fixed = gap.detach().double()
    after = _updated(state, fixed, decay)
    if statistics == "literal":
        above, std = fixed - after["mean"], after["std"]
    else:
        seen = 1 - decay ** after["steps"]
        above = (fixed - after["mean"] / seen).where(seen > 0, 0.0)
        std = (after["std"] / seen).clamp_min(epsilon)
    z = (above / std).where(std > 0, 0.0)
    kept = _drawn(z, rho, rng)
    used = (beta * (1 + alpha * above[kept].mean())).clamp_min(beta_min)
    weight = torch.zeros_like(gap).index_fill(0, kept, len(gap) / len(kept))
    return -weight * logsigmoid(used.to(gap) * gap), after


def _updated(state: State, gaps: Tensor, decay: float) -> dict[str, Tensor]:
    """Running mean, standard deviation and number of steps with these gaps among them."""
    after = {name: state[name].to(gaps) for name in ("mean", "std", "steps")}
    if len(gaps) > 1:
        after["mean"] = decay * after["mean"] + (1 - decay) * gaps.mean()
        after["std"] = decay * after["std"] + (1 - decay) * gaps.std()
        after["steps"] = after["steps"] + 1
    return after


def _drawn(z: Tensor, rho: float, rng: Generator) -> Tensor:
    """Places of the kept pairs, drawn without replacement with weights exp(-z^2 / 2).

    They are the largest of log-weight plus Gumbel noise, for which no weight is too small.
    """
    kept = max(1, int(rho * len(z) + 1e-9))  # 0.29 * 100 is below 29
    noise = -torch.empty_like(z).exponential_(generator=rng).log()
    return (noise - z.square() / 2).topk(kept).indices
