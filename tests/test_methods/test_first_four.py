"""DPO, SimPO, MADPO and AlphaDPO: known numbers, limits, gradients, what no input may change."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.optimize import brentq
from torch import Tensor
from torch.nn.functional import softplus

from harness import registry
from harness.api import LogProbs, PairLogProbs, RequestError, State

METHODS = ("dpo", "simpo", "madpo", "alphadpo")
load_method = functools.cache(registry.load_method)
LN999 = math.log(999)

# Four pairs in which no two quantities are equal, so that no swap goes unseen.
FIXTURE = {
    "sw": (-42.0, -60.5, -20.0, -75.0),
    "sl": (-47.0, -52.0, -33.0, -74.0),
    "rw": (-43.0, -58.0, -24.0, -74.2),
    "rl": (-45.5, -53.0, -30.0, -74.6),
    "Lw": (30.0, 48.0, 16.0, 50.0),
    "Ll": (35.0, 40.0, 24.0, 64.0),
    "hphi": (1.5, -0.7, 4.2, 8.5),
}
MADPO_WIDE = {"c_max": 4.0, "c_min": 0.25, "tau": LN999}
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "dpo beta=0.1": ("dpo", {"beta": 0.1}),
    "simpo beta=2.5 gamma/beta=0.55": ("simpo", {"beta": 2.5, "gamma": 2.5 * 0.55}),
    "madpo beta=0.1 c_max=4 c_min=1/4 lambda=1 tau=ln999": ("madpo", MADPO_WIDE),
    "madpo beta=0.1 c_max=2 c_min=1/2 lambda=1 tau=2": ("madpo", {}),
    "alphadpo beta=2.5 gamma/beta=0.6 alpha=0.2 EMA first step from 0 (mu=.1*mean, sd=.1*std)": (
        "alphadpo",
        {"statistics": "literal"},
    ),
    # One corrected step equals the limit of many.
    "alphadpo beta=2.5 gamma/beta=0.6 alpha=0.2 EMA converged (mu=mean, sd=unbiased std)": (
        "alphadpo",
        {},
    ),
    "alphadpo alpha=0 == simpo gamma/beta=0.6 beta=2.5": ("alphadpo", {"alpha": 0.0}),
}
"""Rows of the reference numbers, computed independently in double precision."""

GOLDEN = (
    # method, settings, losses, gradients by the summed log-probs of chosen and of rejected
    (
        "dpo",
        {"beta": 0.1},
        (0.57593942, 0.88338216, 0.40318605, 0.76559518),
        (-0.0437823, -0.0586618, -0.0331812, -0.0534943),
        (0.0437823, 0.0586618, 0.0331812, 0.0534943),
    ),
    (
        "simpo",
        {"beta": 2.5, "gamma": 2.5 * 0.55},
        (1.71603651, 1.52222968, 1.35933314, 2.33608197),
        (-0.0683519, -0.0407175, -0.1161200, -0.0451647),
        (0.0585873, 0.0488610, 0.0774133, 0.0352849),
    ),
    (
        "madpo",
        MADPO_WIDE,
        (0.70252596, 0.15566275, 0.40923148, 0.74666078),
        (-0.0534053, -0.0103369, -0.0336787, -0.0521713),
        (0.0534053, 0.0103369, 0.0336787, 0.0521713),
    ),
    (
        "alphadpo",
        {},
        (1.79695562, 1.30944373, 2.03880952, 2.19860425),
        (-0.0695164, -0.0380224, -0.1359088, -0.0444521),
        (0.0595855, 0.0456269, 0.0906059, 0.0347282),
    ),
    (
        "alphadpo",
        {"statistics": "literal"},
        (3.34740551, 0.39625802, 10.24650960, 1.71465334),
        (-0.0804020, -0.0170399, -0.1562445, -0.0409987),
        (0.0689160, 0.0204479, 0.1041630, 0.0320302),
    ),
)


def wide(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)


def begin(name: str) -> State:
    return {key: wide(value) for key, value in (load_method(name).initial or {}).items()}


def batch(size: int = 12, seed: int = 0) -> dict[str, Tensor]:
    """Random totals, lengths and margins under the names of the fixture."""
    draw = torch.Generator().manual_seed(seed)
    lengths = {key: torch.randint(3, 40, (size,), generator=draw).double() for key in ("Lw", "Ll")}
    means = torch.randn(4, size, generator=draw, dtype=torch.float64) * 0.3 - 1.5
    return {
        "sw": means[0] * lengths["Lw"],
        "sl": means[1] * lengths["Ll"],
        "rw": means[2] * lengths["Lw"],
        "rl": means[3] * lengths["Ll"],
        "hphi": torch.randn(size, generator=draw, dtype=torch.float64) * 3,
        **lengths,
    }


def evaluate(
    name: str,
    settings: Mapping[str, Any] | None = None,
    *,
    state: State | None = None,
    **numbers: Any,
) -> Tensor:
    """Losses on the fixture, or on given numbers under the fixture's names."""
    n = {key: wide(value) for key, value in {**FIXTURE, **numbers}.items()}
    inputs = {
        "policy": PairLogProbs.from_totals(n["sw"], n["sl"], n["Lw"], n["Ll"]),
        "reference": PairLogProbs.from_totals(n["rw"], n["rl"], n["Lw"], n["Ll"]),
        "margin": n["hphi"],
        "state": begin(name) if state is None else state,
    }
    loaded = load_method(name)
    found = loaded.losses(settings, **{key: inputs[key] for key in loaded.reads})
    return found[0] if "state" in loaded.reads else found


def gradients(name: str, settings: Any = None, **numbers: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, and their gradients by the summed log-probs of chosen and rejected."""
    given = {**FIXTURE, **numbers}
    leaves = [wide(given[key]).clone().requires_grad_() for key in ("sw", "sl")]
    losses = evaluate(name, settings, **{**numbers, "sw": leaves[0], "sl": leaves[1]})
    return losses.detach(), *torch.autograd.grad(losses.sum(), leaves)


def ratios(n: Mapping[str, Any]) -> Tensor:
    """Delta: log-ratio of the chosen minus log-ratio of the rejected."""
    return (wide(n["sw"]) - wide(n["rw"])) - (wide(n["sl"]) - wide(n["rl"]))


def gaps(n: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """u and g: gap of mean log-probs under the policy, and minus that of the reference."""
    u = wide(n["sw"]) / wide(n["Lw"]) - wide(n["sl"]) / wide(n["Ll"])
    return u, u - (wide(n["rw"]) / wide(n["Lw"]) - wide(n["rl"]) / wide(n["Ll"]))


def close(actual: Any, expected: Any, tolerance: float = 1e-9) -> None:
    torch.testing.assert_close(wide(actual), wide(expected), rtol=0, atol=tolerance)


# Known numbers


@pytest.mark.parametrize(("name", "settings", "losses", "chosen", "rejected"), GOLDEN)
def test_golden_numbers(
    name: str, settings: dict[str, Any], losses: Any, chosen: Any, rejected: Any
) -> None:
    found_losses, found_chosen, found_rejected = gradients(name, settings)
    close(found_losses, losses, 1e-6)
    close(found_chosen, chosen, 1e-5)
    close(found_rejected, rejected, 1e-5)


@pytest.mark.parametrize("row", ROWS)
def test_reference_numbers(row: str, shared: Path) -> None:
    sheet = json.loads((shared / "reference/golden_vectors.json").read_text())
    name, settings = ROWS[row]
    losses, chosen, rejected = gradients(name, settings, **sheet["fixture"])
    close(losses, sheet["results"][row]["loss"], 1e-6)
    close(losses.mean(), sheet["results"][row]["mean"], 1e-6)
    close(chosen, sheet["results"][row]["dw"], 1e-5)
    close(rejected, sheet["results"][row]["dl"], 1e-5)


def test_no_reference_row_of_these_methods_is_left_out(shared: Path) -> None:
    sheet = json.loads((shared / "reference/golden_vectors.json").read_text())
    assert {row for row in sheet["results"] if row.split()[0] in METHODS} == set(ROWS)
    for key, values in FIXTURE.items():
        assert tuple(sheet["fixture"][key]) == values


# Closed forms: each loss and its gradients once more, written plainly


def plain_dpo(n: Mapping[str, Any], beta: float = 0.1) -> tuple[Tensor, Tensor, Tensor]:
    z = beta * ratios(n)
    slope = beta * torch.sigmoid(-z)
    return softplus(-z), -slope, slope


def plain_simpo(n: Any, beta: float = 2.0, gamma: Any = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    z = beta * gaps(n)[0] - gamma
    slope = beta * torch.sigmoid(-z)
    return softplus(-z), -slope / wide(n["Lw"]), slope / wide(n["Ll"])


def plain_madpo(
    n: Any,
    *,
    beta: float = 0.1,
    c_max: float = 2.0,
    c_min: float = 0.5,
    lambda_: float = 1.0,
    tau: float = 2.0,
) -> tuple[Tensor, Tensor, Tensor]:
    weights = wide([plain_weight(float(h), c_max, c_min, lambda_, tau) for h in n["hphi"]])
    loss, chosen, rejected = plain_dpo(n, beta)
    return weights * loss, weights * chosen, weights * rejected


def plain_c(m: float, c_max: float, c_min: float, lambda_: float, tau: float) -> float:
    r = (c_max - 1) / (1 - c_min)
    return c_min + (c_max - c_min) / (1 + r * math.exp(lambda_ * (m - tau)))


def plain_weight(
    h: float, c_max: float = 2.0, c_min: float = 0.5, lambda_: float = 1.0, tau: float = 2.0
) -> float:
    if h <= -tau:
        return 1.0
    c = plain_c(abs(h), c_max, c_min, lambda_, tau)
    return (1 + math.exp(-h)) / (1 + math.exp(-c * h))


def plain_alphadpo(
    n: Any, beta: float = 2.5, gamma_beta_ratio: float = 0.6, alpha: float = 0.2
) -> tuple[Tensor, Tensor, Tensor]:
    g = gaps(n)[1]
    mean = g.sum() / len(g)
    std = (((g - mean) ** 2).sum() / (len(g) - 1)) ** 0.5
    return plain_simpo(n, beta, beta * (gamma_beta_ratio + alpha * (g - mean) / std))


PLAIN = {
    "dpo": (plain_dpo, {"beta": 0.7}),
    "simpo": (plain_simpo, {"beta": 3.0, "gamma": 0.2}),
    "madpo": (
        plain_madpo,
        {"beta": 0.3, "c_max": 3.5, "c_min": 0.3, "lambda_": 1.7, "tau": 2.6},
    ),
    "alphadpo": (plain_alphadpo, {"beta": 3.0, "gamma_beta_ratio": 0.2, "alpha": 0.7}),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("defaults", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_losses_and_gradients_are_those_of_the_closed_form(
    name: str, defaults: bool, seed: int
) -> None:
    plain, other = PLAIN[name]
    settings: dict[str, Any] = {} if defaults else other
    numbers = batch(seed=seed)
    for actual, expected in zip(
        gradients(name, settings, **numbers), plain(numbers, **settings), strict=True
    ):
        close(actual, expected, 1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_gradients_are_finite_differences(name: str) -> None:
    # AlphaDPO's target holds still where the reference moves along with the policy.
    with_reference = name == "alphadpo"
    numbers, step = batch(seed=5), 1e-5
    _, *slopes = gradients(name, **numbers)
    for slope, side, ref in zip(slopes, ("sw", "sl"), ("rw", "rl"), strict=True):
        moved = []
        for sign in (1, -1):
            shift = {side: numbers[side] + sign * step}
            if with_reference:
                shift[ref] = numbers[ref] + sign * step
            moved.append(evaluate(name, **{**numbers, **shift}))
        close((moved[0] - moved[1]) / (2 * step), slope, 1e-8)


@pytest.mark.parametrize("name", METHODS)
def test_a_likelier_chosen_and_a_less_likely_rejected_answer_cost_less(name: str) -> None:
    _, chosen, rejected = gradients(name, **batch(64))
    assert (chosen < 0).all()
    assert (rejected > 0).all()


# DPO and SimPO


def test_dpo_is_log_2_at_the_reference_with_half_the_slope() -> None:
    n = batch()
    at = {**n, "rw": n["sw"], "rl": n["sl"]}
    losses, chosen, rejected = gradients("dpo", {"beta": 0.3}, **at)
    assert load_method("dpo").at_reference == math.log(2)
    close(losses, [math.log(2)] * 12, 1e-15)
    close(chosen, [-0.15] * 12, 1e-15)
    close(rejected, [0.15] * 12, 1e-15)


def test_dpo_sums_over_tokens_and_simpo_takes_means() -> None:
    # Every token twice: the sums double, the means stay.
    twice = {key: 2 * wide(FIXTURE[key]) for key in ("sw", "sl", "rw", "rl", "Lw", "Ll")}
    close(evaluate("dpo", {"beta": 0.05}, **twice), evaluate("dpo", {"beta": 0.1}))
    close(evaluate("simpo", **twice), evaluate("simpo"))
    close(evaluate("alphadpo", **twice), evaluate("alphadpo"))


def test_simpo_reads_no_reference_and_its_gamma_stands_outside_beta() -> None:
    assert load_method("simpo").reads == ("policy",)
    u = gaps(FIXTURE)[0]
    close(evaluate("simpo", {"beta": 10.0, "gamma": 3.0}), softplus(-10 * (u - 0.3)))


# MADPO


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
    c = plain_c(20.0, 4.0, 0.25, 1.0, LN999)
    assert (1 + math.exp(20)) / (1 + math.exp(20 * c)) > 1e6


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
    close(evaluate("madpo", settings, **numbers), evaluate("dpo", **numbers), 1e-6)


def test_madpo_with_a_constant_margin_is_scaled_dpo() -> None:
    numbers = batch()
    dpo = evaluate("dpo", **numbers)
    for h in (-9.0, -1.0, 0.0, 0.7, 2.0, 5.0):
        same = evaluate("madpo", **{**numbers, "hphi": torch.full((12,), h)})
        close(same, plain_weight(h) * dpo)
    for h in (-9.0, 0.0, 2.0):
        assert plain_weight(h) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize(
    ("h", "optimum"),
    [(-3, -11.162593), (-1, -3.959624), (0.5, 1.987703), (2, 7.784483), (5, 13.011039)],
)
def test_madpo_optimum_over_both_labels_is_c_times_the_margin(h: float, optimum: float) -> None:
    likely = 1 / (1 + math.exp(-h))  # of the label under which the margin is h

    def slope(gap: float) -> float:
        # Lengths of 1 and a reference of 0: the two labels see the gap and its negative.
        zero = torch.zeros(2)
        one = {"sl": zero, "rw": zero, "rl": zero, "Lw": zero + 1, "Ll": zero + 1}
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


# AlphaDPO


def targets(losses: Tensor, u: Tensor, beta: float = 2.5) -> Tensor:
    """m, from loss = softplus(-beta (u - m))."""
    return u + torch.log(torch.expm1(losses)) / beta


def step(numbers: Any, state: State, **settings: Any) -> tuple[Tensor, State]:
    n = {key: wide(value) for key, value in {**FIXTURE, **numbers}.items()}
    losses, after = load_method("alphadpo").losses(
        settings,
        policy=PairLogProbs.from_totals(n["sw"], n["sl"], n["Lw"], n["Ll"]),
        reference=PairLogProbs.from_totals(n["rw"], n["rl"], n["Lw"], n["Ll"]),
        state=state,
    )
    return losses, after


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
    close(losses, GOLDEN[3][2], 1e-6)


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


@pytest.mark.filterwarnings("ignore:std..:UserWarning")
def test_alphadpo_literally_has_no_spread_of_one_pair() -> None:
    assert step(one_pair(0), begin("alphadpo"), statistics="literal")[0].isnan().all()


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


# What no method may do


def tokens(seed: int = 0, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """Per-token inputs for every method: random log-probs, lengths 1 to 9."""
    draw = torch.Generator().manual_seed(seed)

    def answers() -> LogProbs:
        lengths = torch.randint(1, 10, (6, 1), generator=draw)
        values = -torch.rand(6, 9, generator=draw, dtype=torch.float64) * 3
        return LogProbs(values.to(dtype), torch.arange(9) < lengths)

    policy = PairLogProbs(answers(), answers())
    return {
        "policy": policy,
        "reference": PairLogProbs(
            *(
                LogProbs((side.values.double() + 0.3 * answers().values).to(dtype), side.mask)
                for side in (policy.chosen, policy.rejected)
            )
        ),
        "margin": torch.randn(6, generator=draw, dtype=torch.float64) * 3,
        "state": {"mean": wide(0.1), "std": wide(0.2), "steps": wide(3)},
    }


def losses_of(name: str, inputs: Mapping[str, Any], **settings: Any) -> Tensor:
    loaded = load_method(name)
    out = loaded.losses(settings, **{key: inputs[key] for key in loaded.reads})
    return out[0] if "state" in loaded.reads else out


def change(inputs: Mapping[str, Any], how: Any) -> dict[str, Any]:
    """The inputs with a function applied to every `LogProbs` in them."""
    return {
        key: PairLogProbs(how(value.chosen), how(value.rejected))
        if isinstance(value, PairLogProbs)
        else value
        for key, value in inputs.items()
    }


@pytest.mark.parametrize("side", ["left", "right", "both"])
@pytest.mark.parametrize("name", METHODS)
def test_padding_never_changes_a_loss(name: str, side: str) -> None:
    def pad(given: LogProbs) -> LogProbs:
        junk = torch.full((6, 4), math.nan, dtype=torch.float64)
        junk[:, ::2] = -math.inf
        no = torch.zeros(6, 4, dtype=torch.bool)
        left, right = side != "right", side != "left"
        values = [junk] * left + [given.values.masked_fill(~given.mask, math.nan)] + [junk] * right
        return LogProbs(
            torch.cat(values, 1), torch.cat([no] * left + [given.mask] + [no] * right, 1)
        )

    inputs = tokens()
    close(losses_of(name, change(inputs, pad)), losses_of(name, inputs), 1e-12)

    leaf = change(inputs, pad)["policy"]
    for answers in (leaf.chosen, leaf.rejected):
        answers.values.requires_grad_()
    losses_of(name, {**change(inputs, pad), "policy": leaf}).sum().backward()
    for answers in (leaf.chosen, leaf.rejected):
        assert answers.values.grad is not None
        assert answers.values.grad.isfinite().all()
        assert (answers.values.grad[~answers.mask] == 0).all()
        assert (answers.values.grad[answers.mask] != 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_the_order_of_pairs_only_permutes_the_losses(name: str) -> None:
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    inputs = tokens()
    turned = change(inputs, lambda given: LogProbs(given.values[order], given.mask[order]))
    turned["margin"] = inputs["margin"][order]
    close(losses_of(name, turned), losses_of(name, inputs)[order], 1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_only_a_coupled_loss_depends_on_the_other_pairs(name: str) -> None:
    inputs = tokens()
    first = change(inputs, lambda given: LogProbs(given.values[:3], given.mask[:3]))
    first["margin"] = inputs["margin"][:3]
    alone, together = losses_of(name, first), losses_of(name, inputs)[:3]
    assert torch.allclose(alone, together) != load_method(name).coupled


@pytest.mark.parametrize("name", METHODS)
def test_a_log_ratio_of_zero_does_not_change_a_length(name: str) -> None:
    # One half of the tokens is as likely under both; and one policy token is certain.
    inputs = tokens()
    same = torch.arange(9) % 2 == 0
    policy = change(
        inputs, lambda given: LogProbs(given.values * (torch.arange(9) != 1), given.mask)
    )
    sides = zip(
        (policy["policy"].chosen, policy["policy"].rejected),
        (inputs["reference"].chosen, inputs["reference"].rejected),
        strict=True,
    )
    reference = PairLogProbs(
        *(LogProbs(torch.where(same, p.values, r.values), p.mask) for p, r in sides)
    )
    given = {**inputs, "policy": policy["policy"], "reference": reference}
    totals = {
        "sw": policy["policy"].chosen.total(),
        "sl": policy["policy"].rejected.total(),
        "rw": reference.chosen.total(),
        "rl": reference.rejected.total(),
        "Lw": policy["policy"].chosen.mask.sum(1),
        "Ll": policy["policy"].rejected.mask.sum(1),
        "hphi": inputs["margin"],
    }
    expected = evaluate(name, state=inputs["state"], **totals)
    close(losses_of(name, given), expected, 1e-12)


@pytest.mark.parametrize("name", METHODS)
def test_bfloat16_log_probs_are_used_in_single_precision(name: str) -> None:
    narrow = tokens(dtype=torch.bfloat16)
    full = change(narrow, lambda given: LogProbs(given.values.double(), given.mask))
    # In their own precision: float32 margins, as a reward model would give.
    narrow["margin"] = narrow["margin"].float()
    losses = losses_of(name, narrow)
    assert losses.dtype == torch.float32
    close(losses, losses_of(name, full), 1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_nothing_but_the_policy_takes_a_gradient_through_an_adaptive_term(name: str) -> None:
    inputs = tokens()
    margin = inputs["margin"].clone().requires_grad_()
    state = {key: value.clone().requires_grad_() for key, value in inputs["state"].items()}
    reference = change(
        {"it": inputs["reference"]},
        lambda given: LogProbs(given.values.clone().requires_grad_(), given.mask),
    )["it"]
    policy = change(
        {"it": inputs["policy"]},
        lambda given: LogProbs(given.values.clone().requires_grad_(), given.mask),
    )["it"]
    given = {"policy": policy, "reference": reference, "margin": margin, "state": state}
    losses_of(name, given).sum().backward()
    assert policy.chosen.values.grad is not None
    assert margin.grad is None
    if name == "alphadpo":  # the reference enters its target only
        assert reference.chosen.values.grad is None
        assert reference.rejected.values.grad is None


def other_value(name: str, key: str) -> list[Any]:
    choices: dict[str, list[Any]] = {
        "form": ["amplify", "regularise"],
        "statistics": ["literal"],
    }
    default = load_method(name).defaults[key]
    return choices.get(key) or [float(default) / 2]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "key"), [(name, key) for name in METHODS for key in load_method(name).defaults]
)
def test_every_setting_changes_the_loss_of_some_input(name: str, key: str) -> None:
    inputs = tokens()
    near = {**inputs, "reference": inputs["policy"], "state": begin("alphadpo")}
    slightly = change(near, lambda given: LogProbs(given.values * (1 + 1e-5), given.mask))
    near = {**near, "policy": slightly["policy"], "reference": inputs["policy"]}
    for value in other_value(name, key):
        assert any(
            not torch.equal(losses_of(name, given), losses_of(name, given, **{key: value}))
            for given in (inputs, near)
        )


@pytest.mark.parametrize("name", METHODS)
def test_losses_stay_finite_at_extremes(name: str) -> None:
    far = wide([-1e4, -1.0, -1e4, -1.0])
    losses, chosen, rejected = gradients(
        name, sw=far, sl=far.flip(0), rw=far.roll(1), rl=far.roll(2)
    )
    for found_values in (losses, chosen, rejected):
        assert found_values.isfinite().all()


def test_no_two_of_these_methods_are_the_same() -> None:
    numbers = batch()
    slopes = [gradients(name, **numbers)[1] for name in METHODS]
    for i, one in enumerate(slopes):
        for two in slopes[i + 1 :]:
            assert (one - two).abs().max() > 1e-3


@pytest.mark.parametrize("name", METHODS)
def test_the_source_names_paper_and_commit(name: str) -> None:
    loaded = load_method(name)
    assert loaded.source.startswith("arXiv:")
    assert " @" in loaded.source
    assert loaded.status == "verified"
    assert all(key in loaded.bounds for key in loaded.grid)
    assert registry.found("methods")[name].origin == "built in"
