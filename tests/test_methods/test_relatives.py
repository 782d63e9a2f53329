"""Relatives of DPO: other divergences, shapes of the reward, offsets, soft labels, rankings."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor
from torch.nn.functional import mse_loss, softplus

from harness.api import PairLogProbs, RequestError

from .numbers import (
    FIXTURE,
    advance,
    at_reference,
    batch,
    begin,
    close,
    evaluate,
    gaps,
    gradients,
    inputs,
    load_method,
    log_ratios,
    plain_dpo,
    ratios,
    wide,
)

Plain: TypeAlias = tuple[Tensor, Tensor, Tensor]
"""Losses, and their gradients by the summed log-probs of chosen and of rejected."""


def near(actual: Any, expected: Any) -> None:
    """Equal to twelve digits: exponents of log-ratios are large numbers."""
    torch.testing.assert_close(wide(actual), wide(expected), rtol=1e-11, atol=1e-12)


def same(one: tuple[Tensor, ...], two: tuple[Tensor, ...]) -> None:
    """Losses and both gradients are those of another loss."""
    for actual, expected in zip(one, two, strict=True):
        near(actual, expected)


def pairs(h_w: Any, h_l: Any) -> dict[str, Tensor]:
    """Pairs of these log-ratios, with answers of 3 and 4 tokens."""
    h_w, h_l = torch.broadcast_tensors(torch.atleast_1d(wide(h_w)), wide(h_l))
    rest = {"rw": -30 + 0 * h_w, "rl": -40 + 0 * h_w, "Lw": 3 + 0 * h_w, "Ll": 4 + 0 * h_w}
    return {**batch(len(h_w)), **rest, "sw": h_w - 30, "sl": h_l - 40}


def means(a_w: Any, a_l: Any) -> dict[str, Tensor]:
    """Pairs of these mean log-probs, with answers of 3 and 4 tokens."""
    a_w, a_l = torch.broadcast_tensors(torch.atleast_1d(wide(a_w)), wide(a_l))
    return {**pairs(a_w, a_l), "sw": 3 * a_w, "sl": 4 * a_l}


def rewards(better: Any, worse: Any) -> dict[str, Tensor]:
    return {"rewards": torch.stack(torch.broadcast_tensors(wide(better), wide(worse)))}


# Closed forms: each loss and its gradients once more, written plainly


def plain_fdpo(n: Any, beta: float, f: str, alpha: float = 0.5) -> Plain:
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]
    value, slope = {
        "reverse_kl": (lambda h: h, torch.ones_like),
        "forward_kl": (lambda h: 1 - 1 / h.exp(), lambda h: 1 / h.exp()),
        "js": (lambda h: (2 * h.exp() / (1 + h.exp())).log(), lambda h: 1 / (1 + h.exp())),
        "alpha": (lambda h: (1 - h.exp() ** -alpha) / alpha, lambda h: h.exp() ** -alpha),
    }[f]
    h_w, h_l = log_ratios(n)
    z = beta * (value(h_w) - value(h_l))
    pull = beta * torch.sigmoid(-z)
    return softplus(-z), -pull * slope(h_w), pull * slope(h_l)


def plain_chipo(n: Any, beta: float, r_max: float = math.inf) -> Plain:
    h_w, h_l = log_ratios(n)
    z = beta * (h_w.exp() + h_w - h_l.exp() - h_l)
    inside = z.abs() <= 2 * r_max
    z = z.clamp(-2 * r_max, 2 * r_max)
    pull = beta * torch.sigmoid(-z) * inside
    return softplus(-z), -pull * (1 + h_w.exp()), pull * (1 + h_l.exp())


def plain_alphapo(n: Any, beta: float, alpha: float, gamma: float) -> Plain:
    length_w, length_l = wide(n["Lw"]), wide(n["Ll"])
    p_w, p_l = (wide(n["sw"]) / length_w).exp(), (wide(n["sl"]) / length_l).exp()
    r_w, r_l = (1 - p_w**-alpha) / alpha, (1 - p_l**-alpha) / alpha
    z = beta * (r_w - r_l) - gamma
    pull = beta * torch.sigmoid(-z)
    return softplus(-z), -pull * p_w**-alpha / length_w, pull * p_l**-alpha / length_l


def plain_dpop(n: Any, beta: float, lambda_: float) -> Plain:
    h_w, h_l = log_ratios(n)
    fallen = (h_w < 0).double()
    z = beta * (h_w - h_l + lambda_ * h_w * fallen)
    pull = beta * torch.sigmoid(-z)
    return softplus(-z), -pull * (1 + lambda_ * fallen), pull


def plain_cal_dpo(n: Any, beta: float, form: str = "code") -> Plain:
    h_w, h_l = log_ratios(n)
    target, share = 1 / (2 * beta), {"code": 1 / 2, "paper": 1}[form]
    pull = torch.sigmoid(h_l - h_w)
    loss = softplus(h_l - h_w) + share * ((h_w - target) ** 2 + (h_l + target) ** 2)
    return loss, -pull + 2 * share * (h_w - target), pull + 2 * share * (h_l + target)


def plain_dpo_shift(n: Any, beta: float, lambda_: float) -> Plain:
    h_w, h_l = log_ratios(n)
    z = beta * (h_w - lambda_ * h_l)
    pull = beta * torch.sigmoid(-z)
    return softplus(-z), -pull, lambda_ * pull


def plain_odpo(n: Any, beta: float, alpha: float, offset: str = "log_difference") -> Plain:
    better, worse = n["rewards"]
    gap = better - worse if offset == "log_difference" else better / worse
    pull = beta / (1 + (beta * ratios(n)).exp() * gap**-alpha)
    return (1 + (-beta * ratios(n)).exp() * gap**alpha).log(), -pull, pull


def plain_mmpo(n: Any, beta: float, gamma: float) -> Plain:
    z, p = beta * ratios(n), 1 / (1 + (-gamma * wide(n["hphi"])).exp())
    pull = beta * (p - torch.sigmoid(z))
    return p * softplus(-z) + (1 - p) * softplus(z), -pull, pull


def plain_simper(n: Any) -> Plain:
    length_w, length_l = wide(n["Lw"]), wide(n["Ll"])
    p_w, p_l = (wide(n["sw"]) / length_w).exp(), (wide(n["sl"]) / length_l).exp()
    return p_l - p_w, -p_w / length_w, p_l / length_l


def plain_rrhf(n: Any, weight: float = 100.0, eta: float = 1.0, sft: float = 1.0) -> Plain:
    s_w, s_l, length_w, length_l = (wide(n[key]) for key in ("sw", "sl", "Lw", "Ll"))
    gap = s_l / length_l**eta - s_w / length_w**eta
    wrong = weight * (gap > 0).double()
    chosen = -wrong / length_w**eta - sft / length_w
    return wrong * gap - sft * s_w / length_w, chosen, wrong / length_l**eta


PLAIN: list[tuple[str, Callable[..., Plain], dict[str, Any]]] = [
    ("fdpo", plain_fdpo, {"beta": 0.3, "f": "reverse_kl"}),
    ("fdpo", plain_fdpo, {"beta": 0.3, "f": "forward_kl"}),
    ("fdpo", plain_fdpo, {"beta": 0.3, "f": "js"}),
    ("fdpo", plain_fdpo, {"beta": 0.3, "f": "alpha", "alpha": 0.2}),
    ("chipo", plain_chipo, {"beta": 0.02}),
    ("chipo", plain_chipo, {"beta": 0.02, "r_max": 0.1}),
    ("alphapo", plain_alphapo, {"beta": 3.0, "alpha": 0.7, "gamma": 0.4}),
    ("alphapo", plain_alphapo, {"beta": 3.0, "alpha": -0.7, "gamma": 0.4}),
    ("dpop", plain_dpop, {"beta": 0.2, "lambda_": 3.0}),
    ("cal_dpo", plain_cal_dpo, {"beta": 0.04}),
    ("cal_dpo", plain_cal_dpo, {"beta": 0.04, "form": "paper"}),
    ("dpo_shift", plain_dpo_shift, {"beta": 0.2, "lambda_": 0.6}),
    ("odpo", plain_odpo, {"beta": 0.2, "alpha": 0.4}),
    ("odpo", plain_odpo, {"beta": 0.2, "alpha": 0.4, "offset": "log_ratio"}),
    ("mmpo", plain_mmpo, {"beta": 0.2, "gamma": 0.6}),
    ("simper", plain_simper, {}),
    ("rrhf", plain_rrhf, {"weight": 7.0, "eta": 0.8, "sft": 0.3}),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("name", "plain", "settings"), PLAIN)
def test_losses_and_gradients_are_those_of_the_closed_form(
    name: str, plain: Callable[..., Plain], settings: dict[str, Any], seed: int
) -> None:
    numbers = batch(seed=seed)
    worse = 0.1 + numbers["KLw"]
    numbers |= rewards(worse + 0.1 + numbers["KLl"], worse)
    same(gradients(name, settings, **numbers), plain(numbers, **settings))


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("fdpo", {"f": "reverse_kl"}),
        ("dpop", {"lambda_": 0.0}),
        ("dpo_shift", {"lambda_": 1.0}),
        ("odpo", {"alpha": 0.0}),
    ],
)
def test_a_special_case_is_exactly_dpo(name: str, settings: dict[str, Any]) -> None:
    numbers = batch()  # some of whose rewards contradict the label
    expected = gradients("dpo", {"beta": 0.3}, **numbers)
    same(gradients(name, {"beta": 0.3, **settings}, **numbers), expected)


@pytest.mark.parametrize(
    ("name", "settings", "slopes"),
    [
        ("fdpo", {"beta": 0.3, "f": "forward_kl"}, (0.15, 0.15)),
        ("fdpo", {"beta": 0.3, "f": "alpha"}, (0.15, 0.15)),
        ("fdpo", {"beta": 0.3, "f": "js"}, (0.075, 0.075)),  # half of DPO's
        ("chipo", {"beta": 0.3}, (0.3, 0.3)),  # twice DPO's
        ("dpop", {"beta": 0.3}, (0.15, 0.15)),  # at the kink
        ("dpo_shift", {"beta": 0.3, "lambda_": 0.6}, (0.15, 0.09)),
    ],
)
def test_the_loss_is_log_2_at_the_reference_with_its_own_slopes(
    name: str, settings: dict[str, Any], slopes: tuple[float, float]
) -> None:
    losses, chosen, rejected = gradients(name, settings, **at_reference(batch()))
    near(losses, [math.log(2)] * 12)
    near(chosen, [-slopes[0]] * 12)
    near(rejected, [slopes[1]] * 12)


@pytest.mark.parametrize(
    ("name", "setting", "value"),
    [
        ("fdpo", "alpha", 0.0),
        ("fdpo", "alpha", 1.0),
        ("fdpo", "f", "kl"),
        ("chipo", "r_max", 0.0),
        ("alphapo", "gamma", -0.1),
        ("dpop", "lambda_", -1.0),
        ("cal_dpo", "beta", 0.0),
        ("cal_dpo", "form", "trl"),
        ("dpo_shift", "lambda_", 0.0),
        ("dpo_shift", "lambda_max", 1.1),
        ("dpo_shift", "steps", 0),
        ("dpo_shift", "steps", 10.0),
        ("odpo", "alpha", -1.0),
        ("odpo", "offset", "ratio"),
        ("mmpo", "gamma", 0.0),
        ("rrhf", "eta", -0.5),
    ],
)
def test_a_setting_outside_its_bounds_is_refused_by_name(
    name: str, setting: str, value: Any
) -> None:
    with pytest.raises(RequestError, match=f"{name}.{setting}"):
        load_method(name).resolve({setting: value})


@pytest.mark.parametrize(
    ("name", "settings", "needs"),
    [
        ("fdpo", {"f": "js", "alpha": 0.3}, "f=alpha"),
        ("dpo_shift", {"schedule": "increasing", "lambda_": 0.6}, "schedule=fixed"),
        ("dpo_shift", {"lambda_min": 0.6}, "schedule=increasing"),
        ("dpo_shift", {"lambda_max": 0.9}, "schedule=increasing"),
        ("dpo_shift", {"steps": 7}, "schedule=increasing"),
    ],
)
def test_a_setting_that_a_form_ignores_is_refused(
    name: str, settings: dict[str, Any], needs: str
) -> None:
    with pytest.raises(RequestError, match=f"has no effect here: it needs {needs}"):
        load_method(name).resolve(settings)


@pytest.mark.parametrize(("name", "given"), [("mmpo", "margin"), ("odpo", "rewards")])
def test_no_gradient_passes_into_the_reward_model(name: str, given: str) -> None:
    read = inputs(FIXTURE)
    leaf = torch.stack((wide(FIXTURE["hphi"]), wide([0.5, -1.0, 0.2, 3.0]))).requires_grad_()
    read[given] = leaf[0] if given == "margin" else (leaf[0], leaf[1])
    read["policy"].chosen.values.requires_grad_()
    method = load_method(name)
    method.losses(**{key: read[key] for key in method.reads}).sum().backward()
    assert leaf.grad is None


# f-DPO


@pytest.mark.parametrize(
    ("alpha", "limit"),
    [
        (1e-7, lambda n: plain_dpo(n, 0.3)),
        (1 - 1e-7, lambda n: plain_fdpo(n, 0.3, "forward_kl")),
    ],
    ids=["dpo", "forward kl"],
)
def test_fdpo_with_an_extreme_alpha_is_dpo_or_the_forward_kl(
    alpha: float, limit: Callable[..., Plain]
) -> None:
    numbers = pairs(torch.linspace(-3, 3, 7), torch.linspace(2, -4, 7))
    found = gradients("fdpo", {"beta": 0.3, "f": "alpha", "alpha": alpha}, **numbers)
    for actual, expected in zip(found, limit(numbers), strict=True):
        close(actual, expected, 1e-5)


def test_fdpo_rewards_a_likelier_answer_without_end_only_under_the_reverse_kl() -> None:
    far = pairs([10.0, 1000.0], 0.0)
    for f, bound in {"forward_kl": 1.0, "js": math.log(2), "alpha": 2.0}.items():
        close(evaluate("fdpo", {"beta": 1.0, "f": f}, **far), [softplus(wide(-bound))] * 2, 0.02)
    assert evaluate("fdpo", {"beta": 1.0, "f": "reverse_kl"}, **far)[1] == 0


@pytest.mark.parametrize(
    ("settings", "last"), [({"f": "forward_kl"}, -80.0), ({"f": "alpha", "alpha": 0.25}, -320.0)]
)
def test_fdpo_has_no_gradient_for_an_answer_beyond_the_clamp(
    settings: dict[str, Any], last: float
) -> None:
    losses, chosen, rejected = gradients("fdpo", settings, **pairs([last + 1, last - 1, -1e4], 0.0))
    assert chosen[0] < 0
    assert losses[0] < losses[1] == losses[2]
    assert (chosen[1:] == 0).all()
    assert (rejected > 0).all()


def test_fdpo_by_jensen_shannon_pulls_on_answers_however_unlikely() -> None:
    close(gradients("fdpo", {"beta": 0.3, "f": "js"}, **pairs([-1e4], 0.0))[1], [-0.3])


# chi-PO


def test_chipo_at_half_the_beta_starts_like_dpo_and_leaves_it() -> None:
    start, later = pairs([1e-6], -1e-6), pairs([3.0], -1.0)
    for actual, expected in zip(
        gradients("chipo", {"beta": 0.05}, **start),
        gradients("dpo", {"beta": 0.1}, **start),
        strict=True,
    ):
        close(actual, expected, 1e-6)
    assert evaluate("chipo", {"beta": 0.05}, **later) < 0.9 * evaluate("dpo", **later)


def test_chipo_bounds_the_loss_by_twice_r_max() -> None:
    h = torch.linspace(-4, 4, 81)
    losses, chosen, rejected = gradients("chipo", {"beta": 0.3, "r_max": 0.5}, **pairs(h, 0.0))
    free = evaluate("chipo", {"beta": 0.3}, **pairs(h, 0.0))
    low, high = softplus(wide(-1.0)), softplus(wide(1.0))
    near(losses, free.clamp(low, high))
    clipped = (free < low) | (free > high)
    assert 0 < clipped.sum() < 81
    assert ((chosen == 0) == clipped).all()
    assert ((rejected == 0) == clipped).all()


def test_chipo_keeps_the_gradient_of_the_logarithm_beyond_the_clamp() -> None:
    # Of a rejected answer: a chosen one so likely has nothing more to gain.
    _, _, rejected = gradients("chipo", {"beta": 0.1}, **pairs([0.0, 0.0], [79.0, 81.0]))
    near(rejected[0], 0.1 * (1 + math.exp(79)))
    near(rejected[1], 0.1)


# AlphaPO


def test_alphapo_with_alpha_0_is_exactly_simpo_and_tends_to_it() -> None:
    settings = {"beta": 2.5, "gamma": 0.3}
    expected = gradients("simpo", settings, **batch())
    same(gradients("alphapo", {**settings, "alpha": 0.0}, **batch()), expected)
    for alpha in (1e-7, -1e-7):
        found = gradients("alphapo", {**settings, "alpha": alpha}, **batch())
        for actual, limit in zip(found, expected, strict=True):
            close(actual, limit, 1e-6)


def test_alphapo_with_alpha_minus_1_compares_the_probabilities_themselves() -> None:
    found = evaluate("alphapo", {"beta": 5.0, "alpha": -1.0, "gamma": 0.3}, **batch())
    near(found, softplus(5 * evaluate("simper", **batch()) + 0.3))


def test_alphapo_takes_gamma_outside_beta() -> None:
    u = gaps(FIXTURE)[0]
    found = evaluate("alphapo", {"beta": 10.0, "alpha": 0.0, "gamma": 3.0})
    near(found, softplus(-10 * (u - 0.3)))


@pytest.mark.parametrize("alpha", [0.25, 2.0, -2.0])
def test_alphapo_stays_finite_for_answers_however_unlikely(alpha: float) -> None:
    totals = torch.tensor([-4e4, -4.0]).requires_grad_()
    for dtype in (torch.float32, torch.float64):
        policy = PairLogProbs.from_totals(totals.to(dtype), totals.flip(0).to(dtype))
        losses = load_method("alphapo").losses({"alpha": alpha}, policy=policy)
        assert losses.isfinite().all()
        assert torch.autograd.grad(losses.sum(), totals)[0].isfinite().all()


# DPOP


def test_dpop_is_dpo_for_a_chosen_answer_that_has_not_fallen() -> None:
    numbers = pairs([0.0, 0.1, 5.0], [2.0, -1.0, 0.0])
    expected = gradients("dpo", {"beta": 0.3}, **numbers)
    same(gradients("dpop", {"beta": 0.3}, **numbers), expected)


def test_dpop_prefers_a_kept_chosen_answer_to_a_wider_gap() -> None:
    kept, wider = evaluate("dpop", **pairs([0.0, -1.0], [-1.0, -20.0]))
    assert kept < wider
    kept, wider = evaluate("dpo", {"beta": 0.3}, **pairs([0.0, -1.0], [-1.0, -20.0]))
    assert kept > wider


# Cal-DPO


def test_cal_dpo_averages_to_the_authors_loss() -> None:
    # Theirs adds the batch's mean squared error to the loss of each pair.
    numbers = batch()
    h_w, h_l = log_ratios(numbers)
    target = torch.full_like(h_w, 25.0)
    squares = mse_loss(h_w, target) + mse_loss(h_l, -target)
    expected = (softplus(h_l - h_w) + 0.5 * squares).mean()
    near(evaluate("cal_dpo", {"beta": 0.02}, **numbers).mean(), expected)


def test_cal_dpo_draws_both_log_ratios_to_their_targets_and_back() -> None:
    _, chosen, rejected = gradients("cal_dpo", {"beta": 0.02}, **pairs([24.0, 26.0], [-24.0, -26]))
    assert chosen[0] < 0 < chosen[1]
    assert rejected[1] < 0 < rejected[0]


def test_cal_dpo_has_no_beta_in_its_preference_term() -> None:
    numbers, target = pairs([1.0, -2.0], [3.0, 0.5]), 1 / (2 * 0.3)
    h_w, h_l = log_ratios(numbers)
    squares = ((h_w - target) ** 2 + (h_l + target) ** 2) / 2
    near(evaluate("cal_dpo", {"beta": 0.3}, **numbers) - squares, softplus(h_l - h_w))


# DPO-Shift


def test_dpo_shift_reads_a_state_only_for_a_schedule() -> None:
    shift = load_method("dpo_shift")
    assert shift.reads == ("policy", "reference")
    assert not shift.whole_step
    for schedule in ("increasing", "decreasing"):
        assert "state" in shift.narrowed({"schedule": schedule}).reads


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ("increasing", (0.6, 0.65, 0.7, 0.75, 0.8, 0.8)),
        ("decreasing", (0.8, 0.75, 0.7, 0.65, 0.6, 0.6)),
    ],
)
def test_dpo_shift_moves_in_a_line_from_the_first_step_and_then_stays(
    schedule: str, factors: tuple[float, ...]
) -> None:
    settings = {"schedule": schedule, "lambda_min": 0.6, "lambda_max": 0.8, "steps": 4}
    state = begin("dpo_shift")
    for step, factor in enumerate(factors):
        assert state["step"] == step
        losses, state = advance("dpo_shift", settings, state=state, **batch())
        near(losses, evaluate("dpo_shift", {"lambda_": factor}, **batch()))


@pytest.mark.parametrize("schedule", ["increasing", "decreasing"])
def test_dpo_shift_refuses_a_least_factor_above_the_greatest(schedule: str) -> None:
    settings = {"schedule": schedule, "lambda_min": 0.9, "lambda_max": 0.8}
    with pytest.raises(RequestError, match=r"lambda_min=0.9 is above lambda_max=0.8"):
        evaluate("dpo_shift", settings)


def test_dpo_shift_counts_steps_and_not_pairs() -> None:
    settings = {"schedule": "increasing"}
    for size in (1, 12):
        after = advance("dpo_shift", settings, state=begin("dpo_shift"), **batch(size))[1]
        assert after["step"] == 1


def test_dpo_shift_favours_the_chosen_answer_over_the_gap() -> None:
    # Both answers rise, the rejected one more: DPO's loss rises, with a small factor it falls.
    risen, start = pairs([4.0], [5.0]), pairs([0.0], [0.0])
    settings = {"beta": 0.1, "lambda_": 0.5}
    assert evaluate("dpo", **risen) > evaluate("dpo", **start)
    assert evaluate("dpo_shift", settings, **risen) < evaluate("dpo_shift", settings, **start)


# ODPO


def test_odpo_with_a_reward_gap_of_1_is_dpo() -> None:
    numbers = {**batch(), **rewards(batch()["hphi"] + 1, batch()["hphi"])}
    same(gradients("odpo", {"beta": 0.3}, **numbers), gradients("dpo", {"beta": 0.3}, **numbers))


def test_odpo_asks_for_more_the_wider_the_rewards_are_apart() -> None:
    numbers = {**pairs(torch.ones(5), 0.0), **rewards([0.01, 0.5, 1.0, 2.0, 100.0], 0.0)}
    losses = evaluate("odpo", **numbers)
    assert (losses[1:] > losses[:-1]).all()


@pytest.mark.parametrize(
    ("offset", "better", "worse"),
    [
        ("log_difference", [2.0, 1.0, -3.0, 0.0], [2.0, 3.0, -2.0, 0.0]),
        ("log_ratio", [0.0, -1.0, -1.0, 3.0], [2.0, 3.0, -2.0, 0.0]),
    ],
)
def test_odpo_learns_nothing_where_the_offset_does_not_exist(
    offset: str, better: list[float], worse: list[float]
) -> None:
    numbers = {**pairs([-20.0, 0.0, 5.0, 20.0], 0.0), **rewards(better, worse)}
    for found in gradients("odpo", {"offset": offset}, **numbers):
        assert found.isfinite().all()
        assert (found.abs() < 1e-28).all()


def test_odpo_takes_a_gap_below_its_floor_for_the_floor() -> None:
    n = {**pairs([2.0] * 4, 0.0), **rewards([1e-29, 1e-30, 1e-31, 0.0], 0.0)}
    losses = evaluate("odpo", {"alpha": 0.01}, **n)
    near(losses[1:], softplus(wide([-0.2 + 0.01 * math.log(1e-30)] * 3)))
    assert losses[0] > losses[1] + 1e-3


def test_odpo_by_the_ratio_does_not_depend_on_the_scale_of_the_rewards() -> None:
    better, worse = wide([2.0, 3.0, 0.5, 9.0]), wide([1.0, 0.1, 0.4, 2.0])

    def losses(offset: str, scale: float) -> Tensor:
        return evaluate("odpo", {"offset": offset}, **rewards(scale * better, scale * worse))

    near(losses("log_ratio", 3.0), losses("log_ratio", 1.0))
    assert (losses("log_difference", 3.0) > losses("log_difference", 1.0)).all()


# MMPO


def test_mmpo_with_a_certain_margin_is_dpo() -> None:
    numbers = {**batch(), "hphi": torch.full((12,), 800.0)}
    same(gradients("mmpo", {"beta": 0.3}, **numbers), gradients("dpo", {"beta": 0.3}, **numbers))


@pytest.mark.parametrize("epsilon", [0.1, 0.3, 0.45])
def test_mmpo_with_a_constant_margin_is_cdpo(epsilon: float) -> None:
    margin = math.log((1 - epsilon) / epsilon) / 2
    numbers = {**batch(), "hphi": torch.full((12,), margin, dtype=torch.float64)}
    found = gradients("mmpo", {"beta": 0.3, "gamma": 2.0}, **numbers)
    same(found, gradients("cdpo", {"beta": 0.3, "epsilon": epsilon}, **numbers))


def test_mmpo_is_least_where_the_reward_gap_is_gamma_times_the_margin() -> None:
    margins = wide([-2.0, 0.0, 0.5, 3.0])
    numbers = {**pairs(0.7 * margins / 0.2, 0.0), "hphi": margins}
    losses, chosen, rejected = gradients("mmpo", {"beta": 0.2, "gamma": 0.7}, **numbers)
    close(chosen, [0] * 4, 1e-15)
    close(rejected, [0] * 4, 1e-15)
    for aside in (-0.1, 0.1):
        beside = {**numbers, "sw": numbers["sw"] + aside}
        assert (evaluate("mmpo", {"beta": 0.2, "gamma": 0.7}, **beside) > losses).all()


def test_mmpo_does_not_care_which_answer_is_called_chosen() -> None:
    n = batch()
    exchanged = str.maketrans("wl", "lw")
    turned = {key.translate(exchanged): value for key, value in n.items()} | {"hphi": -n["hphi"]}
    near(evaluate("mmpo", **turned), evaluate("mmpo", **n))


def test_mmpo_is_log_2_at_the_reference_whatever_the_margin() -> None:
    losses, chosen, _ = gradients("mmpo", **at_reference(batch()))
    near(losses, [math.log(2)] * 12)
    assert ((chosen < 0) == (batch()["hphi"] > 0)).all()


def test_mmpo_keeps_the_digits_of_a_nearly_certain_label() -> None:
    # The share that speaks for the rejected answer is exp(-40), which 1 - p rounds to nothing.
    numbers = {**pairs([1e4], 0.0), "hphi": wide([40.0])}
    near(evaluate("mmpo", {"beta": 1e16}, **numbers), [1e20 / (1 + math.exp(40))])


# SimPER


def test_simper_has_nothing_to_set_and_reads_the_policy_alone() -> None:
    assert load_method("simper").reads == ("policy",)
    assert load_method("simper").defaults == {}


def test_simper_lies_between_minus_1_and_1() -> None:
    losses = evaluate("simper", **means([-1e-9, -1e4, -1.0], [-1e4, -1e-9, -1.0]))
    close(losses, [-1, 1, 0], 1e-8)


def test_simper_takes_means_over_tokens() -> None:
    twice = {key: 2 * wide(FIXTURE[key]) for key in ("sw", "sl", "Lw", "Ll")}
    near(evaluate("simper", **twice), evaluate("simper"))


def test_simper_pulls_least_on_the_least_likely_answer() -> None:
    _, chosen, _ = gradients("simper", **means([-0.1, -1.0, -5.0, -50.0], -1.0))
    assert (chosen[1:].abs() < chosen[:-1].abs()).all()
    assert chosen[-1].abs() < 1e-20


# RRHF


def test_rrhf_charges_a_well_ordered_pair_for_its_likelihood_alone() -> None:
    numbers = means([-1.0, -2.0], [-1.5, -2.0])  # a tie is well ordered
    losses, chosen, rejected = gradients("rrhf", **numbers)
    near(losses, [1.0, 2.0])
    near(chosen, [-1 / 3] * 2)
    near(rejected, [0.0] * 2)
    near(evaluate("rrhf", {"sft": 0.0}, **numbers), [0.0] * 2)


def test_rrhf_orders_by_means_or_by_sums_as_eta_says() -> None:
    # The rejected answer is the longer one: less likely as a whole, likelier per token.
    numbers = means([-2.0], -1.8)
    near(evaluate("rrhf", {"eta": 1.0, "sft": 0.0}, **numbers), [20.0])
    near(evaluate("rrhf", {"eta": 0.0, "sft": 0.0}, **numbers), [0.0])


def test_rrhf_adds_the_mean_negative_log_likelihood_of_the_chosen_answer() -> None:
    numbers = batch()
    added = evaluate("rrhf", {"sft": 0.5}, **numbers) - evaluate("rrhf", {"sft": 0.0}, **numbers)
    near(added, -0.5 * numbers["sw"] / numbers["Lw"])
    doubled = evaluate("rrhf", {"weight": 2.0, "sft": 0.0}, **numbers)
    near(doubled, 2 * evaluate("rrhf", {"weight": 1.0, "sft": 0.0}, **numbers))
