"""Gamma-PO: each pair gets its own target margin, a larger one where it is already ahead."""

import math
from typing import Literal

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, State, method


@method(
    source="arXiv:2506.03690; sunjie279/gammaPO scripts/xpo_trainer.py:31-53,135,"
    " scripts/simpo_trainer.py:644-657 @4f2e09c",
    formula="-log sigmoid(R - sg[g]), R = beta * u, g_i = g0 * B * p_i, g0 = beta *"
    " gamma_beta_ratio, p = argmin over distributions of (1 / B) * sum of -log sigmoid(R_i - g_i) +"
    " tau * KL(p || uniform), B gaps: the step's and past ones; form dpo: R = beta * (h_w - h_l)"
    " and -log sigmoid(R - sg[g - g0])",
    stop_gradient="the target margin",
    disagreements=(
        "The authors' loop computes the targets before its last update of p, so their 20 rounds "
        "are `steps=19` here. At tau 10 the difference is below 1e-6.",
        "tau is 10 in the authors' configurations for Llama-3 and Mistral, 20 for Gemma 2, 3 for "
        "Qwen 2.5, and 1 in their class.",
        "The authors' `sample` holds a device's micro-batch, 2 pairs, and up to 254 past gaps; "
        "here the step's own pairs take as many of its places as they are.",
        "Each of the authors' processes has a queue of its own; here there is one.",
    ),
    # Of the authors' four configurations.
    grid={
        "beta": (2.5, 10.0),
        "gamma_beta_ratio": (0.15, 0.3, 0.4, 0.5),
        "tau": (3.0, 10.0, 20.0),
    },
    bounds={
        "beta": "(0, inf)",
        "gamma_beta_ratio": "[0, inf)",
        "tau": "(0, inf)",
        "sample": "[0, inf)",
        "steps": "[1, inf)",
    },
    coupled=True,
    initial={"queue": (0.0,) * 2048, "filled": 0.0},
    at_reference=lambda s: math.log(2) if s["form"] == "dpo" and s["sample"] == 0 else None,
    only_for={"reference": {"form": ("dpo",)}},
)
def gammapo(
    policy: PairLogProbs,
    reference: PairLogProbs,
    state: State,
    rng: Generator,
    *,
    beta: float = 10.0,
    gamma_beta_ratio: float = 0.4,
    tau: float = 10.0,
    form: Literal["simpo", "dpo"] = "simpo",
    sample: int = 256,
    steps: int = 20,
) -> tuple[PerPair, State]:
    """Gamma-PO: SimPO's or DPO's loss per pair, in nats, with targets that share a fixed sum.

    The targets of all gaps in the sample are balanced so that they cost least beside a penalty for
    being unequal: a pair that is far ahead takes from those that are behind. Their mean is gamma.
    As `tau` grows they become equal, and the loss that of SimPO with gamma = beta *
    gamma_beta_ratio or of DPO. No gradient passes the target. Past gaps come from a queue of the
    last 2048, which starts with 8 draws from the standard normal distribution.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference; only read by the form "dpo".
        state: the queue of past reward gaps, the newest last, and how many of them are filled.
        rng: where the first 8 gaps and the past gaps of a step are drawn from.
        beta: reward per nat: of mean log-prob, or of summed log-ratio in the form "dpo", which
            wants a far smaller one.
        gamma_beta_ratio: mean target over beta.
        tau: price of unequal targets.
        form: "simpo"; or "dpo", which subtracts only what a target is above gamma.
        sample: how many gaps share the sum: the step's own, filled up with past ones; with 0, or
            fewer than the step has pairs, the queue is not used.
        steps: rounds of exponentiated gradient that the targets are solved with.

    Returns:
        One loss per pair, in nats, and the next state.
    """
    if form == "dpo":
        chosen = policy.chosen.total() - reference.chosen.total()
        rejected = policy.rejected.total() - reference.rejected.total()
    else:
        chosen, rejected = policy.chosen.mean(), policy.rejected.mean()
    gap, gamma = beta * (chosen - rejected), beta * gamma_beta_ratio
    fixed = gap.detach().double()
    queue, filled = state["queue"].to(fixed), int(state["filled"])
    if filled == 0:
        first = torch.randn(8, generator=rng, dtype=fixed.dtype, device=fixed.device)
        queue, filled = _pushed(queue, first), len(first)
    order = torch.randperm(filled, generator=rng, device=fixed.device)
    past = queue[-filled:][order[: max(0, sample - len(fixed))]]
    targets = _targets(torch.cat([fixed, past]), gamma, tau, steps)[: len(fixed)]
    margin = targets - gamma if form == "dpo" else targets
    count = torch.as_tensor(min(filled + len(fixed), len(queue))).to(fixed)
    after = {"queue": _pushed(queue, fixed), "filled": count}
    return -logsigmoid(gap - margin.to(gap)), after


def _pushed(queue: Tensor, gaps: Tensor) -> Tensor:
    """The queue with these gaps at its end, as long as before."""
    return torch.cat([queue, gaps])[-len(queue) :]


def _targets(gaps: Tensor, gamma: float, tau: float, steps: int) -> Tensor:
    """The targets of these gaps, with mean gamma; x is the log of a target over gamma.

    One round moves log p against tau * log(B p) + gamma * sigmoid(target - gap), the gradient up
    to a constant, and normalises.
    """
    x, rate = torch.zeros_like(gaps), min(0.5 / tau, 1.0)
    for _ in range(steps):
        x = x - rate * (tau * x + gamma * torch.sigmoid(gamma * x.exp() - gaps))
        x = x.log_softmax(0) + math.log(len(gaps))
    return gamma * x.exp()
