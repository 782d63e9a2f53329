"""MADPO: the weight's known values and limits, its optimum, its ablations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor

from harness.api import PairLogProbs, RequestError

from .numbers import (
    FIXTURE,
    batch,
    close,
    evaluate,
    gradients,
    load_method,
    plain_dpo,
    wide,
)

LN999 = math.log(999)
MADPO_WIDE = {"c_max": 4.0, "c_min": 0.25, "tau": LN999}


def plain_madpo(
    n: Any,
    *,
    beta: float = 0.1,
    c_max: float = 2.0,
    c_min: float = 0.5,
    lambda_: float = 1.0,
    tau: float = 2.0,
    form: str = "full",
) -> tuple[Tensor, Tensor, Tensor]:
    weights = [plain_weight(float(h), c_max, c_min, lambda_, tau, form=form) for h in n["hphi"]]
    return plain_dpo(n, beta, wide(weights))


def plain_c(m: float, c_max: float, c_min: float, lambda_: float, tau: float) -> float:
    r = (c_max - 1) / (1 - c_min)
    return c_min + (c_max - c_min) / (1 + r * math.exp(lambda_ * (m - tau)))


def plain_weight(
    h: float,
    c_max: float = 2.0,
    c_min: float = 0.5,
    lambda_: float = 1.0,
    tau: float = 2.0,
    *,
    form: str = "full",
) -> float:
    if h <= -tau:
        return 1.0
    c = plain_c(abs(h), c_max, c_min, lambda_, tau)
    c = {"full": c, "amplify": max(c, 1.0), "regularise": min(c, 1.0)}[form]
    return (1 + math.exp(-h)) / (1 + math.exp(-c * h))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "settings", [{}, {"beta": 0.3, "c_max": 3.5, "c_min": 0.3, "lambda_": 1.7, "tau": 2.6}]
)
@pytest.mark.parametrize("form", ["full", "amplify", "regularise"])
def test_losses_and_gradients_are_those_of_the_closed_form(
    settings: dict[str, Any], form: str, seed: int
) -> None:
    numbers, settings = batch(24, seed=seed), {**settings, "form": form}
    for actual, expected in zip(
        gradients("madpo", settings, **numbers), plain_madpo(numbers, **settings), strict=True
    ):
        close(actual, expected, 1e-12)


def weights(h: Any, **settings: Any) -> Tensor:
    """The weight at given margins: MADPO's loss over DPO's for the same pair."""
    h = wide(h)
    same = {key: torch.full_like(h, FIXTURE[key][0]) for key in FIXTURE}
    return evaluate("madpo", settings, **{**same, "hphi": h}) / evaluate("dpo", **same)


def c_of(h: Tensor, **settings: Any) -> Tensor:
    """c(h) for h > 0, from w = sigmoid(c h) / sigmoid(h)."""
    return torch.logit(weights(h, **settings) * torch.sigmoid(h)) / h


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (
            {"tau": LN999},
            {-2: 0.157506, -1: 0.446409, -0.5: 0.713637, 0.5: 1.173688, 1: 1.203655, 2: 1.114019}
            | {4: 1.017699, 0: 1.0},
        ),
        (
            MADPO_WIDE,
            {-2: 0.003490, -1: 0.069582, -0.5: 0.319171, 0.5: 1.412944, 1: 1.342282, 2: 1.134863}
            | {4: 1.018314, 8: 0.987195, 10: 0.948890, 0: 1.0, -8: 1.0},
        ),
        ({}, {-1: 0.756903, 1: 1.089430, 3: 0.944988, -3: 1.0, 2: 1.0, 0: 1.0, -2: 1.0}),
    ],
)
def test_madpo_weights(settings: dict[str, float], expected: dict[float, float]) -> None:
    close(weights(list(expected), **settings), list(expected.values()), 6e-7)


def test_madpo_weights_of_the_fixture() -> None:
    wide_weights = [1.21979142, 0.17621224, 1.01499416, 0.97526839]
    close(weights(FIXTURE["hphi"], **MADPO_WIDE), wide_weights, 1e-8)
    close(weights(FIXTURE["hphi"]), [1.04460906, 0.7931137, 0.93292221, 0.98626919], 1e-8)


@pytest.mark.parametrize("tau", [0.5, 2.0, LN999])
@pytest.mark.parametrize("lambda_", [0.5, 3.0])
@pytest.mark.parametrize(("c_max", "c_min"), [(2.0, 0.5), (4.0, 0.25), (1.5, 0.1)])
def test_madpo_c_falls_from_below_c_max_through_1_at_tau_to_c_min(
    c_max: float, c_min: float, lambda_: float, tau: float
) -> None:
    settings = {"c_max": c_max, "c_min": c_min, "lambda_": lambda_, "tau": tau}
    h = torch.linspace(0.01, 6, 60, dtype=torch.float64)
    c = c_of(h, **settings)
    assert (c[1:] < c[:-1]).all()
    assert c[0] < c_max
    assert (c > c_min).all()
    close(weights([tau, 0.0], **settings), [1, 1], 1e-14)
    far = wide([12.0, 14.0]) + tau
    assert (c_of(far, **settings) < c_min + (c_max - c_min) * 0.05).all()


@pytest.mark.parametrize(("c_max", "top"), [(2.0, 1.206), (3.0, 1.332), (4.0, 1.418)])
def test_madpo_amplifies_by_less_than_2(c_max: float, top: float) -> None:
    settings = {"c_max": c_max, "c_min": 1 / c_max, "tau": LN999}
    inside = weights(torch.linspace(1e-6, LN999 - 1e-6, 4001), **settings)
    assert ((inside > 1) & (inside < 2)).all()
    assert inside.max().item() == pytest.approx(top, abs=5e-4)
    beyond = weights(torch.linspace(LN999 + 1e-3, 30, 500), **settings)
    assert ((beyond < 1) & (beyond > c_max**-1)).all()


def test_madpo_trusts_neither_a_weak_nor_a_strong_disagreement_with_the_label() -> None:
    doubted = weights(torch.linspace(-LN999 + 1e-3, -1e-3, 500), **MADPO_WIDE)
    assert (doubted < 1).all()
    assert weights([-4.0], **MADPO_WIDE).item() == pytest.approx(9.2e-5, rel=0.01)
    # From -tau on the weight is 1. Without that branch it would grow beyond every bound.
    close(weights([-LN999, -LN999 - 1e-9, -20.0, -1e4], **MADPO_WIDE), [1] * 4, 0)


def test_madpo_weight_is_continuous_at_minus_tau() -> None:
    # c(tau) is 1, so that the two branches meet; only the slope jumps.
    above = weights([-LN999 + 1e-9, -LN999 + 1e-4], **MADPO_WIDE)
    close(above[0], 1, 1e-7)
    assert above[1] < 1


@pytest.mark.parametrize("form", ["full", "amplify", "regularise"])
@pytest.mark.parametrize("settings", [{"c_max": 1.0}, {"c_min": 1.0}, {"c_max": 1, "c_min": 1}])
def test_madpo_with_a_c_of_1_is_dpo(settings: dict[str, Any], form: str) -> None:
    numbers = batch(64)
    for actual, expected in zip(
        gradients("madpo", {**settings, "form": form}, **numbers),
        gradients("dpo", **numbers),
        strict=True,
    ):
        assert torch.equal(actual, expected)


@pytest.mark.parametrize("settings", [{"c_max": 1 + 1e-9}, {"c_min": 1 - 1e-9}])
def test_madpo_tends_to_dpo_as_c_tends_to_1(settings: dict[str, float]) -> None:
    numbers = batch(64)
    for actual, expected in zip(
        gradients("madpo", settings, **numbers), gradients("dpo", **numbers), strict=True
    ):
        close(actual, expected, 1e-6)
        assert not torch.equal(actual, expected)


def test_madpo_with_a_constant_margin_is_scaled_dpo() -> None:
    numbers = batch()
    dpo = evaluate("dpo", **numbers)
    for h in (-9.0, -1.0, 0.0, 0.7, 2.0, 5.0):
        same = evaluate("madpo", **{**numbers, "hphi": torch.full((12,), h)})
        close(same, plain_weight(h) * dpo)
        if h in (-9.0, 0.0, 2.0):
            close(same, dpo, 1e-14)
        else:
            assert ((same / dpo - 1).abs() > 0.01).all()


@pytest.mark.parametrize(
    ("h", "optimum"),
    [(-3, -11.162593), (-1, -3.959624), (0.5, 1.987703), (2, 7.784483), (5, 13.011039)],
)
def test_madpo_optimum_over_both_labels_is_c_times_the_margin(h: float, optimum: float) -> None:
    likely = 1 / (1 + math.exp(-h))  # of the label under which the margin is h

    def slope(gap: float) -> float:
        # Lengths of 1 and a reference of 0: the two labels see the gap and its negative.
        zero = torch.zeros(2)
        one = {key: zero for key in ("sl", "rw", "rl", "KLw", "KLl")}
        one |= {"Lw": zero + 1, "Ll": zero + 1}
        _, by_gap, _ = gradients(
            "madpo", {"beta": 1.0, **MADPO_WIDE}, sw=[gap, -gap], hphi=[h, -h], **one
        )
        return likely * by_gap[0].item() - (1 - likely) * by_gap[1].item()

    found_optimum = brentq(slope, -20, 20, xtol=1e-10)
    assert found_optimum == pytest.approx(optimum, abs=1e-5)
    assert found_optimum == pytest.approx(plain_c(abs(h), 4, 0.25, 1, LN999) * h, abs=1e-7)
    assert slope(optimum - 0.1) < 0 < slope(optimum + 0.1)


def test_madpo_ablations_keep_one_side_of_c_each() -> None:
    h = torch.linspace(0.1, 8, 80, dtype=torch.float64)
    full, amplify, regularise = (
        weights(h, form=form) for form in ("full", "amplify", "regularise")
    )
    near, beyond = h < 2, h > 2
    assert torch.equal(amplify[near], full[near])
    assert torch.equal(regularise[beyond], full[beyond])
    close(amplify[beyond], torch.ones(int(beyond.sum())), 1e-15)
    close(regularise[near], torch.ones(int(near.sum())), 1e-15)
    assert (full[near] > 1).all()
    assert (full[beyond] < 1).all()


def test_madpo_ablations_at_negative_margins() -> None:
    h = torch.linspace(-LN999 + 1e-3, -1e-3, 200, dtype=torch.float64)
    full, amplify, regularise = (
        weights(h, **MADPO_WIDE, form=form) for form in ("full", "amplify", "regularise")
    )
    # c is above 1 there, which makes a weight smaller: only "regularise" holds it at 1.
    assert torch.equal(amplify, full)
    assert amplify.max() < 1
    assert amplify.min() < 1e-4
    close(regularise, torch.ones(200), 1e-15)
    for form in ("amplify", "regularise"):
        close(weights([-LN999, -9.0], **MADPO_WIDE, form=form), [1, 1], 0)


def test_madpo_leaves_the_reward_model_alone() -> None:
    leaves = [wide(FIXTURE[key]).requires_grad_() for key in ("sw", "hphi")]
    losses = evaluate("madpo", sw=leaves[0], hphi=leaves[1])
    by_policy, by_margin = torch.autograd.grad(losses.sum(), leaves, allow_unused=True)
    assert (by_policy != 0).all()
    assert by_margin is None


def test_madpo_stays_finite_at_extreme_margins() -> None:
    h = [-1e30, -1e4, -1e-30, 1e-30, 1e4, 1e30]
    assert weights(h, **MADPO_WIDE).isfinite().all()
    single = load_method("madpo").losses(
        MADPO_WIDE,
        policy=PairLogProbs.from_totals(torch.zeros(6), torch.zeros(6)),
        reference=PairLogProbs.from_totals(torch.zeros(6), torch.zeros(6)),
        margin=torch.tensor(h),
    )
    assert single.isfinite().all()


@pytest.mark.parametrize(
    ("key", "value", "interval"),
    [
        ("c_min", -1, "(0, 1]"),
        ("c_min", 0, "(0, 1]"),
        ("c_min", 1.1, "(0, 1]"),
        ("c_max", 0.9, "[1, inf)"),
        ("beta", 0, "(0, inf)"),
        ("lambda_", -1, "(0, inf)"),
        ("tau", -0.1, "[0, inf)"),
    ],
)
def test_madpo_refuses_settings_out_of_bounds(key: str, value: float, interval: str) -> None:
    with pytest.raises(RequestError) as refusal:
        load_method("madpo").resolve({key: value})
    assert f"'madpo.{key}' must lie in {interval}, not {float(value)!r}" in str(refusal.value)
