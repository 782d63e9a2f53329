"""cDPO, robust DPO, IPO, R-DPO, CPO, ORPO, KTO, TDPO, hinge, SLiC-HF: closed forms and limits."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor

from harness.api import PairLogProbs, RequestError

from .numbers import (
    FIXTURE,
    at_reference,
    batch,
    close,
    evaluate,
    gradients,
    inputs,
    load_method,
    log_ratios,
    plain_dpo,
    ratios,
    wide,
)

Plain: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Losses, and their gradients by the summed log-probs of the chosen and of the rejected."""

LOG2 = math.log(2)
MISMATCHED = ((0.5, -3.0, 2.0, 1.4), (0.9, 3.1, -0.7, 2.2))  # mean 0.8


def sigmoid(z: Any) -> Tensor:
    return 1 / (1 + torch.exp(-wide(z)))


def cost(z: Tensor) -> Tensor:
    """Minus the log of sigmoid(z)."""
    return torch.log(1 + torch.exp(-z))


def only(**numbers: Any) -> dict[str, Any]:
    """These numbers alone, and nothing of the fixture: one token an answer, no log-prob, no KL."""
    zero = [0.0] * len(numbers["sw"])
    keys = ("sl", "rw", "rl", "hphi", "KLw", "KLl")
    return {**dict.fromkeys(keys, zero), "Lw": [1.0] * len(zero), "Ll": [1.0] * len(zero)} | numbers


# Closed forms: each loss and its gradients once more, written plainly


def plain_cdpo(n: Any, beta: float = 0.1, epsilon: float = 0.2) -> Plain:
    z = beta * ratios(n)
    slope = beta * (1 - epsilon - sigmoid(z))
    return (1 - epsilon) * cost(z) + epsilon * cost(-z), -slope, slope


def plain_robust_dpo(n: Any, beta: float = 0.1, epsilon: float = 0.1) -> Plain:
    z = beta * ratios(n)
    loss = ((1 - epsilon) * cost(z) - epsilon * cost(-z)) / (1 - 2 * epsilon)
    slope = beta * ((1 - epsilon) * sigmoid(-z) + epsilon * sigmoid(z)) / (1 - 2 * epsilon)
    return loss, -slope, slope


def plain_ipo(n: Any, tau: float = 0.1, reduction: str = "mean") -> Plain:
    chosen, rejected = log_ratios(n)
    by_chosen = 1 / wide(n["Lw"]) if reduction == "mean" else 1
    by_rejected = 1 / wide(n["Ll"]) if reduction == "mean" else 1
    missed = chosen * by_chosen - rejected * by_rejected - 0.5 / tau
    return missed * missed, 2 * missed * by_chosen, -2 * missed * by_rejected


def plain_rdpo(n: Any, beta: float = 0.1, alpha: float = 0.1) -> Plain:
    z = beta * ratios(n) + alpha * (wide(n["Lw"]) - wide(n["Ll"]))
    return cost(z), -beta * sigmoid(-z), beta * sigmoid(-z)


def plain_likelihood(n: Any, reduction: str) -> tuple[Tensor, Any]:
    """Terms whose mean over pairs is the likelihood term, and their slopes by s_w."""
    lengths = wide(n["Lw"])
    slope = {
        "tokens": -len(lengths) / lengths.sum() * torch.ones_like(lengths),
        "mean": -1 / lengths,
        "sum": -torch.ones_like(lengths),
    }[reduction]
    return slope * wide(n["sw"]), slope


def plain_cpo(n: Any, beta: float = 0.1, alpha: float = 1.0, reduction: str = "tokens") -> Plain:
    z = beta * (wide(n["sw"]) - wide(n["sl"]))
    likelihood, slope = plain_likelihood(n, reduction)
    return cost(z) + alpha * likelihood, -beta * sigmoid(-z) + alpha * slope, beta * sigmoid(-z)


def plain_orpo(n: Any, lambda_: float = 0.1, nll: float = 1.0, reduction: str = "tokens") -> Plain:
    chosen, rejected = (torch.exp(wide(n[s]) / wide(n[k])) for s, k in (("sw", "Lw"), ("sl", "Ll")))
    odds = (chosen / (1 - chosen)) / (rejected / (1 - rejected))
    slope = lambda_ / (1 + odds)
    likelihood, by_likelihood = plain_likelihood(n, reduction)
    return (
        lambda_ * torch.log(1 + 1 / odds) + nll * likelihood,
        -slope / (1 - chosen) / wide(n["Lw"]) + nll * by_likelihood,
        slope / (1 - rejected) / wide(n["Ll"]),
    )


def plain_kto(
    n: Any,
    beta: float = 0.1,
    lambda_d: float = 1.0,
    lambda_u: float = 1.0,
    reduction: str = "mean",
) -> Plain:
    given = [float(value) for part in n["mismatched"] for value in part]
    z = max(0.0, sum(given) / len(given))
    chosen, rejected = log_ratios(n)
    p, q = sigmoid(beta * (chosen - z)), sigmoid(beta * (z - rejected))
    loss = lambda_d * (1 - p) + lambda_u * (1 - q)
    share = 0.5 if reduction == "mean" else 1.0
    return (
        share * loss,
        -share * lambda_d * beta * p * (1 - p),
        share * lambda_u * beta * q * (1 - q),
    )


def plain_tdpo(n: Any, beta: float = 0.1, alpha: float = 0.5, form: str = "tdpo2") -> Plain:
    drift = wide(n["KLl"]) - wide(n["KLw"])
    z = beta * (ratios(n) - (drift if form == "tdpo1" else alpha * drift))
    return cost(z), -beta * sigmoid(-z), beta * sigmoid(-z)


def plain_hinge(n: Any, beta: float = 0.05) -> Plain:
    lacks = 1 - beta * ratios(n)
    slope = beta * (lacks > 0).double()
    return lacks * (lacks > 0), -slope, slope


def plain_slic_hf(
    n: Any, delta: float = 1.0, lambda_: float = 0.1, reduction: str = "sum"
) -> Plain:
    lacks = delta - (wide(n["sw"]) - wide(n["sl"]))
    slope = (lacks > 0).double()
    likelihood, by_likelihood = plain_likelihood(n, reduction)
    return lacks * slope + lambda_ * likelihood, -slope + lambda_ * by_likelihood, slope


PLAIN: dict[str, tuple[Callable[..., Plain], list[dict[str, Any]]]] = {
    "cdpo": (plain_cdpo, [{"beta": 0.4, "epsilon": 0.3}]),
    "robust_dpo": (plain_robust_dpo, [{"beta": 0.4, "epsilon": 0.3}]),
    "ipo": (plain_ipo, [{"tau": 0.7}, {"tau": 0.7, "reduction": "sum"}]),
    "rdpo": (plain_rdpo, [{"beta": 0.3, "alpha": 0.2}]),
    "cpo": (
        plain_cpo,
        [
            {"beta": 0.3, "alpha": 0.6},
            {"beta": 0.3, "alpha": 0.6, "reduction": "mean"},
            {"beta": 0.3, "alpha": 0.6, "reduction": "sum"},
        ],
    ),
    "orpo": (
        plain_orpo,
        [{"lambda_": 0.7, "nll": 0.4}, {"lambda_": 0.7, "nll": 0.4, "reduction": "mean"}],
    ),
    "kto": (
        plain_kto,
        [
            {"beta": 0.3, "lambda_d": 1.3, "lambda_u": 0.8},
            {"beta": 0.3, "lambda_d": 1.3, "lambda_u": 0.8, "reduction": "sum"},
        ],
    ),
    "tdpo": (
        plain_tdpo,
        [{"beta": 0.3, "alpha": 0.9}, {"beta": 0.3, "form": "tdpo1"}],
    ),
    "hinge": (plain_hinge, [{"beta": 0.3}]),
    "slic_hf": (
        plain_slic_hf,
        [{"delta": 3.0, "lambda_": 0.6}, {"delta": 3.0, "lambda_": 0.6, "reduction": "mean"}],
    ),
}
CASES = [(name, settings) for name, (_, others) in PLAIN.items() for settings in ({}, *others)]


def numbers(seed: int) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(100 + seed)
    mismatched = torch.randn(2, 12, generator=draw, dtype=torch.float64) + 1
    return {**batch(seed=seed), "mismatched": mismatched}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_losses_and_gradients_are_those_of_the_closed_form(
    name: str, settings: dict[str, Any], seed: int
) -> None:
    n = numbers(seed)
    for actual, expected in zip(
        gradients(name, settings, **n), PLAIN[name][0](n, **settings), strict=True
    ):
        close(actual, expected, 1e-10)


def same_as_dpo(name: str, settings: dict[str, Any], n: Mapping[str, Any]) -> None:
    beta = settings.get("beta", 0.1)
    for actual, expected in zip(gradients(name, settings, **n), plain_dpo(n, beta), strict=True):
        close(actual, expected, 1e-12)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cdpo", {"beta": 0.3, "epsilon": 0.0}),
        ("robust_dpo", {"beta": 0.3, "epsilon": 0.0}),
        ("rdpo", {"beta": 0.3, "alpha": 0.0}),
        ("tdpo", {"beta": 0.3, "alpha": 0.0}),
    ],
)
def test_a_setting_of_zero_leaves_dpo(name: str, settings: dict[str, Any]) -> None:
    same_as_dpo(name, settings, batch(seed=4))


# cDPO and robust DPO


def test_cdpo_is_least_at_a_reward_gap_of_log_1_minus_epsilon_by_epsilon() -> None:
    settings = {"beta": 0.5, "epsilon": 0.2}
    best = math.log(0.8 / 0.2) / 0.5
    _, chosen, rejected = gradients("cdpo", settings, **one(best))
    close(chosen, [0.0], 1e-12)
    close(rejected, [0.0], 1e-12)
    assert gradients("cdpo", settings, **one(best - 0.1))[1] < 0
    assert gradients("cdpo", settings, **one(best + 0.1))[1] > 0


def one(gap: float, length: float = 1.0) -> dict[str, Any]:
    """One pair of which the chosen answer's log-ratio is all of the gap."""
    return only(sw=[gap - 5], sl=[-7.0], rw=[-5.0], rl=[-7.0], Lw=[length], Ll=[length])


def swapped(n: Mapping[str, Any]) -> dict[str, Any]:
    """The same answers under the other label."""
    pairs = (("sw", "sl"), ("rw", "rl"), ("Lw", "Ll"), ("KLw", "KLl"))
    return {**n, **{new: n[old] for a, b in pairs for new, old in ((a, b), (b, a))}}


@pytest.mark.parametrize("epsilon", [0.1, 0.35])
def test_robust_dpo_averages_to_dpo_over_flipped_labels(epsilon: float) -> None:
    n = batch(seed=2)
    given, flipped = (evaluate("robust_dpo", {"epsilon": epsilon}, **x) for x in (n, swapped(n)))
    close((1 - epsilon) * given + epsilon * flipped, evaluate("dpo", **n), 1e-12)


@pytest.mark.parametrize("epsilon", [0.1, 0.35])
def test_cdpo_is_dpo_averaged_over_flipped_labels(epsilon: float) -> None:
    n = batch(seed=2)
    given, flipped = evaluate("dpo", **n), evaluate("dpo", **swapped(n))
    expected = (1 - epsilon) * given + epsilon * flipped
    close(evaluate("cdpo", {"epsilon": epsilon}, **n), expected, 1e-12)


def test_robust_dpo_falls_without_bound() -> None:
    losses = [float(evaluate("robust_dpo", **one(gap))) for gap in (10.0, 1e3, 1e5)]
    # Far out: minus epsilon * beta * gap / (1 - 2 epsilon).
    assert losses[1] == pytest.approx(-0.1 * 0.1 * 1e3 / 0.8)
    assert losses[2] == pytest.approx(-0.1 * 0.1 * 1e5 / 0.8)
    assert losses[0] > losses[1] > losses[2]


@pytest.mark.parametrize("name", ["cdpo", "robust_dpo"])
@pytest.mark.parametrize("epsilon", [0.5, 0.7, -0.1])
def test_half_of_all_labels_or_more_cannot_be_wrong(name: str, epsilon: float) -> None:
    with pytest.raises(RequestError, match=r"epsilon' must lie in \[0, 0.5\)"):
        load_method(name).resolve({"epsilon": epsilon})


# IPO


@pytest.mark.parametrize(("reduction", "length"), [("sum", 9.0), ("mean", 9.0), ("mean", 1.0)])
def test_ipo_costs_nothing_at_its_target_and_pulls_back_from_beyond(
    reduction: str, length: float
) -> None:
    settings = {"tau": 0.25, "reduction": reduction}
    target = 2 * (length if reduction == "mean" else 1)
    losses, chosen, _ = gradients("ipo", settings, **one(target, length))
    close(losses, [0.0], 1e-12)
    close(chosen, [0.0], 1e-12)
    assert gradients("ipo", settings, **one(target - 0.1, length))[1] < 0
    assert gradients("ipo", settings, **one(target + 0.1, length))[1] > 0


def test_the_two_targets_of_ipo_differ_by_the_length_and_means_are_the_default() -> None:
    n = batch(seed=6)
    tens = {**n, "Lw": wide([10.0] * 12), "Ll": wide([10.0] * 12)}
    means = evaluate("ipo", {"tau": 0.1, "reduction": "mean"}, **tens)
    sums = evaluate("ipo", {"tau": 0.01, "reduction": "sum"}, **tens)
    close(means, sums / 100, 1e-12)
    close(evaluate("ipo", {"tau": 0.1}, **tens), means, 0)


# R-DPO


def test_rdpo_of_equally_long_answers_is_dpo() -> None:
    n = batch(seed=7)
    same_as_dpo("rdpo", {"beta": 0.3, "alpha": 0.7}, {**n, "Ll": n["Lw"]})


def test_rdpo_lets_a_longer_chosen_answer_win_more_cheaply() -> None:
    short, even, long = (
        gradients("rdpo", **only(sw=[-9.0], rw=[-7.0], Lw=[length], Ll=[20.0]))
        for length in (10.0, 20.0, 30.0)
    )
    assert short[0] > even[0] > long[0]
    assert abs(short[1]) > abs(even[1]) > abs(long[1])


# CPO


def test_cpo_without_likelihood_is_dpo_with_a_uniform_reference() -> None:
    n = batch(seed=8)
    zero = torch.zeros(12, dtype=torch.float64)
    uniform = {**n, "rw": zero, "rl": zero}
    for actual, expected in zip(
        gradients("cpo", {"alpha": 0.0}, **n), plain_dpo(uniform), strict=True
    ):
        close(actual, expected, 1e-12)
    assert load_method("cpo").reads == ("policy",)


@pytest.mark.parametrize(
    ("name", "only_likelihood"), [("cpo", {"alpha": 1.0}), ("orpo", {"nll": 1.0, "lambda_": 0.0})]
)
def test_the_likelihood_term_averages_over_all_chosen_tokens_of_the_step(
    name: str, only_likelihood: dict[str, float]
) -> None:
    n = batch(seed=9)
    without = {"cpo": {"alpha": 0.0}, "orpo": {"nll": 0.0, "lambda_": 0.0}}[name]
    terms = evaluate(name, only_likelihood, **n) - evaluate(name, without, **n)
    close(terms.mean(), -n["sw"].sum() / n["Lw"].sum(), 1e-12)
    # Two steps instead of one: another weight for each half, so the loss is coupled.
    half = {key: value[:6] for key, value in n.items()}
    alone = evaluate(name, only_likelihood, **half) - evaluate(name, without, **half)
    assert not torch.allclose(alone, terms[:6], rtol=1e-3)
    assert load_method(name).narrowed().coupled is True


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cpo", {"reduction": "mean"}),
        ("cpo", {"reduction": "sum"}),
        ("cpo", {"alpha": 0.0}),
        ("orpo", {"reduction": "mean"}),
        ("orpo", {"nll": 0.0}),
    ],
)
def test_no_pairs_are_coupled_without_a_mean_over_all_tokens(
    name: str, settings: dict[str, Any]
) -> None:
    n = batch(seed=9)
    half = {key: value[:6] for key, value in n.items()}
    close(evaluate(name, settings, **half), evaluate(name, settings, **n)[:6], 1e-12)
    assert load_method(name).narrowed(settings).coupled is False


@pytest.mark.parametrize("name", ["cpo", "orpo"])
def test_only_the_chosen_answer_is_fitted(name: str) -> None:
    weight = {"cpo": "alpha", "orpo": "nll"}[name]
    losses, chosen, rejected = gradients(name, {weight: 1.0}, **batch())
    none, chosen_without, rejected_without = gradients(name, {weight: 0.0}, **batch())
    assert (losses > none).all()
    assert (chosen < chosen_without).all()
    close(rejected, rejected_without, 0)


# ORPO


def test_orpo_of_equally_likely_answers_costs_lambda_log_2() -> None:
    # Equal in the geometric mean of the token probabilities; the sums differ.
    n = only(sw=[-6.0], sl=[-15.0], Lw=[4.0], Ll=[10.0])
    close(evaluate("orpo", {"nll": 0.0, "lambda_": 0.3}, **n), [0.3 * LOG2], 1e-12)


def test_orpo_by_hand() -> None:
    # p_w = 1/2 and p_l = 1/4 per token: odds 1 and 1/3, so sigmoid(log 3) = 3/4.
    n = only(sw=[-2 * LOG2], sl=[-6 * LOG2], Lw=[2.0], Ll=[3.0])
    losses, chosen, rejected = gradients("orpo", {"lambda_": 0.5, "nll": 2.0}, **n)
    close(losses, [0.5 * math.log(4 / 3) + 2 * LOG2], 1e-12)
    # -lambda * sigmoid(-z) / (1 - p_w) per nat of mean, over 2 tokens; then the likelihood's.
    close(chosen, [-0.5 * 0.25 / 0.5 / 2 - 2 / 2], 1e-12)
    close(rejected, [0.5 * 0.25 / 0.75 / 3], 1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("sw", "sl"), [(0.0, -5.0), (-5.0, 0.0), (0.0, 0.0), (-1e-9, -1e4)])
def test_orpo_of_an_answer_that_is_certain_is_finite(
    sw: float, sl: float, dtype: torch.dtype
) -> None:
    leaves = [torch.tensor([value], dtype=dtype, requires_grad=True) for value in (sw, sl)]
    losses = load_method("orpo").losses(policy=PairLogProbs.from_totals(*leaves))
    slopes = torch.autograd.grad(losses.sum(), leaves)
    assert all(found.isfinite().all() for found in (losses, *slopes))


def test_orpo_takes_a_mean_log_prob_above_its_floor_for_the_floor() -> None:
    n = only(sw=[0.0, -5e-8, -1e-7, -2e-7], sl=[-1.5] * 4)
    losses, chosen, _ = gradients("orpo", {"nll": 0.0, "lambda_": 1.0}, **n)
    odds = 1 / math.expm1(1e-7) * math.expm1(1.5)
    torch.testing.assert_close(losses[:3], wide([math.log1p(1 / odds)] * 3), rtol=1e-9, atol=0)
    assert losses[3] > 1.9 * losses[0]
    close(chosen[:2], [0.0, 0.0], 0)
    assert (chosen[2:] < 0).all()


def test_orpo_keeps_the_odds_exact_down_to_its_floor() -> None:
    # At 2e-6 nats 1 - exp(a) has two digits in single precision unless expm1 computes it.
    policy = PairLogProbs.from_totals(torch.tensor([-2e-6]), torch.tensor([-1.5]))
    found = load_method("orpo").losses({"nll": 0.0, "lambda_": 1.0}, policy=policy)
    odds = 1 / math.expm1(2e-6) * math.expm1(1.5)
    assert found.item() == pytest.approx(math.log1p(1 / odds), rel=1e-5)


# KTO


def test_each_term_of_kto_is_a_half_at_the_reference() -> None:
    n = {**at_reference(batch()), "mismatched": torch.zeros(2, 12)}
    for weights in ((1.0, 1e-9), (1e-9, 1.0)):
        settings = {"lambda_d": weights[0], "lambda_u": weights[1], "reduction": "sum"}
        close(evaluate("kto", settings, **n), [0.5] * 12, 1e-8)
    close(evaluate("kto", **n), [0.5] * 12, 1e-15)


def test_kto_measures_from_the_mean_of_both_mismatched_parts() -> None:
    base = evaluate("kto", mismatched=((0.8,) * 4, (0.8,) * 4))
    close(evaluate("kto", mismatched=MISMATCHED), base, 1e-12)
    for part in (0, 1):
        moved = [list(values) for values in MISMATCHED]
        moved[part][2] += 1.0
        assert (evaluate("kto", mismatched=moved) - base).abs().min() > 1e-6


def test_kto_never_measures_from_below_zero() -> None:
    none = evaluate("kto")
    close(evaluate("kto", mismatched=((-5.0,) * 4, (1.0,) * 4)), none, 1e-15)
    # The mean is bounded, not its parts.
    close(
        evaluate("kto", mismatched=((-5.0,) * 4, (6.0,) * 4)),
        evaluate("kto", mismatched=((0.5,) * 4, (0.5,) * 4)),
        1e-12,
    )


def test_no_gradient_passes_the_point_of_reference_of_kto() -> None:
    given = inputs({**FIXTURE, "mismatched": MISMATCHED})
    leaf = wide(MISMATCHED).requires_grad_()
    policy = PairLogProbs.from_totals(wide(FIXTURE["sw"]).requires_grad_(), wide(FIXTURE["sl"]))
    losses = load_method("kto").losses(
        policy=policy, reference=given["reference"], mismatched=(leaf[0], leaf[1])
    )
    losses.sum().backward()
    assert leaf.grad is None


def test_kto_judges_each_answer_alone() -> None:
    # A change of the rejected answer moves the loss by the same, whatever the chosen answer is.
    moved = {"sl": [value + 3.0 for value in FIXTURE["sl"]]}
    other = {"sw": [value - 9.0 for value in FIXTURE["sw"]]}
    change = evaluate("kto", **moved) - evaluate("kto")
    close(evaluate("kto", **moved, **other) - evaluate("kto", **other), change, 1e-12)
    dpo = evaluate("dpo", **moved) - evaluate("dpo")
    assert ((evaluate("dpo", **moved, **other) - evaluate("dpo", **other)) - dpo).abs().min() > 1e-3


# TDPO


@pytest.mark.parametrize("form", ["tdpo1", "tdpo2"])
def test_tdpo_without_divergence_is_dpo(form: str) -> None:
    n = batch(seed=10)
    zero = torch.zeros(12, dtype=torch.float64)
    same_as_dpo("tdpo", {"beta": 0.3, "form": form}, {**n, "KLw": zero, "KLl": zero})


@pytest.mark.parametrize(
    ("form", "by_chosen", "by_rejected"), [("tdpo1", -1.0, 1.0), ("tdpo2", 0.0, 0.5)]
)
def test_tdpo2_learns_the_divergence_of_the_rejected_answer_only(
    form: str, by_chosen: float, by_rejected: float
) -> None:
    n, settings = batch(seed=11), {"beta": 0.3, "form": form}
    leaves = [n[key].clone().requires_grad_() for key in ("KLw", "KLl")]
    losses = evaluate("tdpo", settings, **{**n, "KLw": leaves[0], "KLl": leaves[1]})
    found = torch.autograd.grad(losses.sum(), leaves, materialize_grads=True)
    unit = -gradients("tdpo", settings, **n)[1]  # beta * sigmoid(-z)
    close(found[0], by_chosen * unit, 1e-12)
    close(found[1], by_rejected * unit, 1e-12)


def test_tdpo1_has_no_alpha() -> None:
    with pytest.raises(RequestError, match=r"tdpo\.alpha' has no effect here: it needs form=tdpo2"):
        load_method("tdpo").resolve({"form": "tdpo1", "alpha": 0.3})


def test_tdpo2_with_alpha_1_has_the_losses_of_tdpo1() -> None:
    n = batch(seed=12)
    close(
        evaluate("tdpo", {"alpha": 1.0, "form": "tdpo2"}, **n),
        evaluate("tdpo", {"form": "tdpo1"}, **n),
        1e-12,
    )


# Hinge and SLiC-HF


def test_hinge_asks_for_a_reward_gap_of_one_and_no_more() -> None:
    n = only(sw=[-3.0, 0.0, 9.0, 10.5, 400.0])
    losses, chosen, rejected = gradients("hinge", {"beta": 0.1}, **n)
    close(losses, [1.3, 1.0, 0.1, 0.0, 0.0], 1e-12)
    close(chosen, [-0.1, -0.1, -0.1, 0.0, 0.0], 1e-12)
    close(rejected, [0.1, 0.1, 0.1, 0.0, 0.0], 1e-12)


def test_the_ranking_of_slic_hf_is_a_hinge_on_log_probs_without_reference() -> None:
    n = batch(seed=13)
    zero = torch.zeros(12, dtype=torch.float64)
    ranking = evaluate("slic_hf", {"delta": 4.0, "lambda_": 0.0}, **n)
    close(ranking, 4 * evaluate("hinge", {"beta": 0.25}, **{**n, "rw": zero, "rl": zero}), 1e-12)
    assert load_method("slic_hf").reads == ("policy",)


def test_beyond_its_gap_slic_hf_fits_the_chosen_answer_alone() -> None:
    n = only(sw=[-12.0], sl=[-20.0], Lw=[6.0], Ll=[5.0])
    for reduction, per in (("sum", 1), ("mean", 6)):
        settings = {"lambda_": 0.2, "reduction": reduction}
        losses, chosen, rejected = gradients("slic_hf", settings, **n)
        close(losses, [0.2 * 12 / per], 1e-12)
        close(chosen, [-0.2 / per], 1e-12)
        close(rejected, [0.0], 1e-12)
