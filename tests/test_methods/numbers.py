"""Inputs for losses, plain to read: the reference fixture, random batches, gradients by totals."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from harness import registry
from harness.api import PairLogProbs, State

load_method = functools.cache(registry.load_method)

# Four pairs in which no two quantities are equal, so that no swap goes unseen.
FIXTURE: Mapping[str, tuple[float, ...]] = {
    "sw": (-42.0, -60.5, -20.0, -75.0),
    "sl": (-47.0, -52.0, -33.0, -74.0),
    "rw": (-43.0, -58.0, -24.0, -74.2),
    "rl": (-45.5, -53.0, -30.0, -74.6),
    "Lw": (30.0, 48.0, 16.0, 50.0),
    "Ll": (35.0, 40.0, 24.0, 64.0),
    "hphi": (1.5, -0.7, 4.2, 8.5),
    "KLw": (0.8, 1.4, 0.3, 1.2),
    "KLl": (1.1, 0.9, 0.6, 1.5),
}
"""Summed log-probs of policy and reference, lengths, reward margins, summed divergences."""


def wide(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def close(actual: Any, expected: Any, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(wide(actual), wide(expected), rtol=0, atol=tolerance)


def begin(name: str) -> State:
    """The state before the first step."""
    return {key: wide(value) for key, value in (load_method(name).initial or {}).items()}


def inputs(n: Mapping[str, Any]) -> dict[str, Any]:
    """All that a loss may read but `state`, from totals and lengths under the fixture's names.

    Beside the fixture's names: `rewards` and `mismatched`, (chosen, rejected), each [pairs];
    `Cw`, `Cl`, `Hw`, `Hl`: mean confidence and mean entropy per token; `seed` of the generator.
    """
    n = {key: value if key == "seed" else wide(value) for key, value in n.items()}
    zero = torch.zeros_like(n["sw"])

    def per_token(chosen: Tensor, rejected: Tensor) -> PairLogProbs:
        return PairLogProbs.from_totals(chosen, rejected, n["Lw"], n["Ll"])

    def mean(chosen: str, rejected: str, value: float) -> PairLogProbs:
        means = [n.get(key, zero + value) for key in (chosen, rejected)]
        return per_token(means[0] * n["Lw"], means[1] * n["Ll"])

    return {
        "policy": per_token(n["sw"], n["sl"]),
        "reference": per_token(n["rw"], n["rl"]),
        "margin": n["hphi"],
        "rewards": tuple(n["rewards"]) if "rewards" in n else (n["hphi"], zero),
        "mismatched": tuple(n["mismatched"]) if "mismatched" in n else (zero, zero),
        "divergence": per_token(n.get("KLw", zero), n.get("KLl", zero)),
        "confidence": mean("Cw", "Cl", -1.0),
        "entropy": mean("Hw", "Hl", 0.5),
        "rng": torch.Generator().manual_seed(int(n.get("seed", 0))),
    }


def evaluate(
    name: str,
    settings: Mapping[str, Any] | None = None,
    *,
    state: State | None = None,
    **numbers: Any,
) -> Tensor:
    """Losses on the fixture, or on given numbers under the fixture's names."""
    return advance(name, settings, state=state, **numbers)[0]


def advance(
    name: str,
    settings: Mapping[str, Any] | None = None,
    *,
    state: State | None = None,
    **numbers: Any,
) -> tuple[Tensor, State]:
    """As `evaluate`; losses and the next state, empty for a method that reads none."""
    method = load_method(name).narrowed(settings)
    given = {**inputs({**FIXTURE, **numbers}), "state": begin(name) if state is None else state}
    found = method.losses(settings, **{key: given[key] for key in method.reads})
    return found if "state" in method.reads else (found, {})


def gradients(name: str, settings: Any = None, **numbers: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, and the gradients of their sum by the summed log-probs of chosen and rejected."""
    given = {**FIXTURE, **numbers}
    leaves = [wide(given[key]).clone().requires_grad_() for key in ("sw", "sl")]
    losses = evaluate(name, settings, **{**numbers, "sw": leaves[0], "sl": leaves[1]})
    return losses.detach(), *torch.autograd.grad(losses.sum(), leaves)


def batch(size: int = 12, seed: int = 0) -> dict[str, Tensor]:
    """Random totals, lengths, margins and divergences under the names of the fixture."""
    draw = torch.Generator().manual_seed(seed)
    lengths = {key: torch.randint(3, 40, (size,), generator=draw).double() for key in ("Lw", "Ll")}
    means = torch.randn(4, size, generator=draw, dtype=torch.float64) * 0.3 - 1.5
    return {
        "sw": means[0] * lengths["Lw"],
        "sl": means[1] * lengths["Ll"],
        "rw": means[2] * lengths["Lw"],
        "rl": means[3] * lengths["Ll"],
        "hphi": torch.randn(size, generator=draw, dtype=torch.float64) * 3,
        "KLw": torch.rand(size, generator=draw, dtype=torch.float64) * 2,
        "KLl": torch.rand(size, generator=draw, dtype=torch.float64) * 2,
        **lengths,
    }


def at_reference(numbers: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers with a reference that equals the policy, and no divergence."""
    zero = torch.zeros_like(numbers["sw"])
    return {**numbers, "rw": numbers["sw"], "rl": numbers["sl"], "KLw": zero, "KLl": zero}


def log_ratios(n: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """h_w and h_l: log-ratios of policy to reference, of the chosen and of the rejected answer."""
    return wide(n["sw"]) - wide(n["rw"]), wide(n["sl"]) - wide(n["rl"])


def ratios(n: Mapping[str, Any]) -> Tensor:
    """Delta: log-ratio of the chosen minus log-ratio of the rejected."""
    chosen, rejected = log_ratios(n)
    return chosen - rejected


def gaps(n: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """u and g: gap of mean log-probs under the policy, and minus that of the reference."""
    u = wide(n["sw"]) / wide(n["Lw"]) - wide(n["sl"]) / wide(n["Ll"])
    return u, u - (wide(n["rw"]) / wide(n["Lw"]) - wide(n["rl"]) / wide(n["Ll"]))


def plain_dpo(
    n: Mapping[str, Any], beta: Any = 0.1, weight: Any = 1.0
) -> tuple[Tensor, Tensor, Tensor]:
    """DPO written a second time, times a weight: losses, and gradients by summed log-probs."""
    z = beta * ratios(n)
    slope = weight * beta * torch.sigmoid(-z)
    # log(1 + e^-z), also where torch's softplus takes -z for it.
    return weight * torch.logaddexp(-z, torch.zeros_like(z)), -slope, slope
