"""AlphaDPO: its statistics, its targets, and where it is SimPO."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from harness.api import State

from .numbers import (
    FIXTURE,
    advance,
    batch,
    begin,
    close,
    evaluate,
    gaps,
    gradients,
    load_method,
    wide,
)


def plain_simpo(n: Any, beta: float = 2.0, gamma: Any = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    z = beta * gaps(n)[0] - gamma
    slope = beta * torch.sigmoid(-z)
    return softplus(-z), -slope / wide(n["Lw"]), slope / wide(n["Ll"])


def plain_alphadpo(
    n: Any, beta: float = 2.5, gamma_beta_ratio: float = 0.6, alpha: float = 0.2
) -> tuple[Tensor, Tensor, Tensor]:
    g = gaps(n)[1]
    mean = g.sum() / len(g)
    std = (((g - mean) ** 2).sum() / (len(g) - 1)) ** 0.5
    return plain_simpo(n, beta, beta * (gamma_beta_ratio + alpha * (g - mean) / std))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("settings", [{}, {"beta": 3.0, "gamma_beta_ratio": 0.2, "alpha": 0.7}])
def test_losses_and_gradients_are_those_of_the_closed_form(
    settings: dict[str, Any], seed: int
) -> None:
    numbers = batch(seed=seed)
    for actual, expected in zip(
        gradients("alphadpo", settings, **numbers), plain_alphadpo(numbers, **settings), strict=True
    ):
        close(actual, expected, 1e-12)


def targets(losses: Tensor, u: Tensor, beta: float = 2.5) -> Tensor:
    """m, from loss = softplus(-beta (u - m))."""
    return u + torch.log(torch.expm1(losses)) / beta


def step(numbers: Any, state: State, **settings: Any) -> tuple[Tensor, State]:
    return advance("alphadpo", settings, state=state, **numbers)


def test_alphadpo_targets() -> None:
    u = gaps(FIXTURE)[0]
    literal = [1.26749572, -0.24882735, 4.22358965, 0.26271822]
    close(targets(evaluate("alphadpo", {"statistics": "literal"}), u), literal, 1e-7)
    corrected = [0.58912517, 0.43749286, 0.88473456, 0.48864742]
    close(targets(evaluate("alphadpo"), u), corrected, 1e-7)


@pytest.mark.parametrize("statistics", ["corrected", "literal"])
def test_alphadpo_without_alpha_is_simpo(statistics: str) -> None:
    numbers = batch()
    settings = {"alpha": 0.0, "beta": 3.0, "gamma_beta_ratio": 0.4, "statistics": statistics}
    for actual, expected in zip(
        gradients("alphadpo", settings, **numbers),
        gradients("simpo", {"beta": 3.0, "gamma": 1.2}, **numbers),
        strict=True,
    ):
        close(actual, expected, 1e-12)


@pytest.mark.parametrize("reference_gap", [0.0, 0.37])
def test_alphadpo_is_simpo_where_all_differences_are_equal(reference_gap: float) -> None:
    n = batch()
    equal = {**n, "rw": n["sw"] - reference_gap * n["Lw"], "rl": n["sl"]}
    simpo = evaluate("simpo", {"beta": 2.5, "gamma": 1.5}, **equal)
    close(evaluate("alphadpo", **equal), simpo, 1e-10)


@pytest.mark.parametrize("statistics", ["corrected", "literal"])
def test_alphadpo_statistics_converge_to_mean_and_unbiased_std(statistics: str) -> None:
    state = begin("alphadpo")
    for _ in range(300):
        losses, state = step({}, state, statistics=statistics)
    g = gaps(FIXTURE)[1]
    close(state["mean"], g.mean(), 1e-12)
    close(state["std"], g.std(), 1e-12)
    assert state["steps"] == 300
    close(losses, plain_alphadpo(FIXTURE)[0], 1e-9)


@pytest.mark.parametrize("statistics", ["corrected", "literal"])
def test_alphadpo_forgets_a_constant_shift_once_the_mean_holds_it(statistics: str) -> None:
    n = batch()
    shifted = {**n, "rw": n["rw"] + 0.8 * n["Lw"]}
    state, shifted_state = begin("alphadpo"), begin("alphadpo")
    for _ in range(400):
        losses, state = step(n, state, statistics=statistics)
        shifted_losses, shifted_state = step(shifted, shifted_state, statistics=statistics)
    close(shifted_losses, losses, 1e-10)
    # The corrected mean holds it from the first step on.
    first = [step(given, begin("alphadpo"))[0] for given in (n, shifted)]
    close(first[0], first[1], 1e-10)


@pytest.mark.parametrize("statistics", ["corrected", "literal"])
def test_alphadpo_mean_target(statistics: str) -> None:
    state: State = begin("alphadpo")
    for seed in range(4):
        numbers = batch(seed=seed)
        losses, state = step(numbers, state, statistics=statistics)
    u, g = gaps(numbers)
    seen = 1 - 0.9**4 if statistics == "corrected" else 1.0
    mean, std = state["mean"] / seen, state["std"] / seen
    close(targets(losses, u).mean(), 0.6 + 0.2 * (g.mean() - mean) / std, 1e-9)


def test_alphadpo_statistics_are_updated_before_use() -> None:
    state = {"mean": wide(0.3), "std": wide(0.5), "steps": wide(40)}
    u, g = gaps(FIXTURE)
    losses, after = step({}, state, statistics="literal", decay=0.8)
    close(after["mean"], 0.8 * 0.3 + 0.2 * g.mean(), 1e-15)
    close(after["std"], 0.8 * 0.5 + 0.2 * g.std(), 1e-15)
    close(targets(losses, u), 0.6 + 0.2 * (g - after["mean"]) / after["std"], 1e-9)


def test_alphadpo_first_step_has_scores_of_unit_scale() -> None:
    for seed in range(5):
        numbers = batch(32, seed)
        u, _ = gaps(numbers)
        corrected = (targets(step(numbers, begin("alphadpo"))[0], u) - 0.6) / 0.2
        close(corrected.mean(), 0, 1e-9)
        close(corrected.std(), 1, 1e-9)
        literal = step(numbers, begin("alphadpo"), statistics="literal", alpha=0.02)[0]
        close(((targets(literal, u) - 0.6) / 0.02).std(), 10, 1e-8)


def test_alphadpo_targets_rise_with_what_the_policy_has_already_separated() -> None:
    u, g = gaps(FIXTURE)
    order = targets(evaluate("alphadpo"), u).argsort()
    assert torch.equal(order, g.argsort())


def test_alphadpo_at_the_reference_is_simpo_in_both_forms() -> None:
    n = batch()
    at = {**n, "rw": n["sw"], "rl": n["sl"]}
    simpo = evaluate("simpo", {"beta": 2.5, "gamma": 1.5}, **at)
    close(evaluate("alphadpo", **at), simpo, 1e-12)
    # The authors' code is 0/0 here; in half precision it never gets here.
    close(evaluate("alphadpo", {"statistics": "literal"}, **at), simpo, 1e-12)
    _, chosen, rejected = gradients("alphadpo", **at)
    assert chosen.isfinite().all()
    assert rejected.isfinite().all()


def test_alphadpo_takes_rounding_for_what_it_is() -> None:
    n = batch(64)
    noise = 1e-6 * torch.randn(64, generator=torch.Generator().manual_seed(1)).double()
    near = {**n, "rw": n["sw"] + noise * n["Lw"], "rl": n["sl"]}
    simpo = evaluate("simpo", {"beta": 2.5, "gamma": 1.5}, **near)
    close(evaluate("alphadpo", **near), simpo, 5e-3)
    unfloored = evaluate("alphadpo", {"epsilon": 1e-12}, **near)
    assert (unfloored - simpo).abs().max() > 0.1


def test_alphadpo_floor_is_no_summand() -> None:
    spread = gaps(FIXTURE)[1].std().item()
    close(evaluate("alphadpo", {"epsilon": 0.999 * spread}), evaluate("alphadpo"), 1e-14)
    u, g = gaps(FIXTURE)
    wider = targets(evaluate("alphadpo", {"epsilon": 2 * spread}), u)
    close(wider, 0.6 + 0.1 * (g - g.mean()) / spread, 1e-9)


def one_pair(seed: int) -> dict[str, Tensor]:
    return {key: value[:1] for key, value in batch(seed=seed).items()}


def test_alphadpo_with_one_pair_per_step_is_simpo() -> None:
    state = begin("alphadpo")
    for seed in range(3):
        losses, state = step(one_pair(seed), state)
        close(losses, evaluate("simpo", {"beta": 2.5, "gamma": 1.5}, **one_pair(seed)), 1e-12)
    assert {key: value.item() for key, value in state.items()} == load_method("alphadpo").initial


def test_alphadpo_scores_a_single_last_pair_by_the_statistics_before_it() -> None:
    _, state = step({}, begin("alphadpo"))
    losses, after = step(one_pair(3), state)
    (u, g), (_, before) = gaps(one_pair(3)), gaps(FIXTURE)
    close(targets(losses, u), 0.6 + 0.2 * (g - before.mean()) / before.std(), 1e-9)
    assert all(torch.equal(after[key], state[key]) for key in state)


def test_alphadpo_literally_too_leaves_its_statistics_alone_for_one_pair() -> None:
    state = begin("alphadpo")
    losses, after = step(one_pair(0), state, statistics="literal")
    close(losses, evaluate("simpo", {"beta": 2.5, "gamma": 1.5}, **one_pair(0)), 1e-12)
    assert after == state


def test_alphadpo_step_of_one_state_gives_the_same_bits_and_moves_nothing() -> None:
    _, state = step(batch(seed=1), begin("alphadpo"))
    kept = {key: value.clone() for key, value in state.items()}
    first, after_first = step({}, state)
    second, after_second = step({}, state)
    assert torch.equal(first, second)
    for key, value in kept.items():
        assert torch.equal(state[key], value)
        assert torch.equal(after_first[key], after_second[key])
        assert not torch.equal(after_first[key], value)
        assert after_first[key].dtype == torch.float64
        assert after_first[key].shape == ()
        assert not after_first[key].requires_grad
