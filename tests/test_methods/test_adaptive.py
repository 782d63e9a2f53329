"""Methods that set a margin, a weight or beta by pair: worked numbers, limits, stop-gradients."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from harness.api import PairLogProbs, RequestError, State

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
    plain_dpo,
    ratios,
    wide,
)

Found = tuple[Tensor, Tensor, Tensor]


def of_gaps(u: Any) -> dict[str, Any]:
    """Answers of one token whose gap of mean log-probs is u; the reference is 0 everywhere."""
    u = wide(u)
    zero = torch.zeros_like(u)
    lengths = {"Lw": zero + 1, "Ll": zero + 1}
    unread = {"hphi": zero, "KLw": zero, "KLl": zero}
    return {"sw": u - 2, "sl": zero - 2, "rw": zero, "rl": zero, **lengths, **unread}


def softplus(z: Tensor) -> Tensor:
    """log(1 + e^z), also where torch's own takes z for it."""
    return torch.logaddexp(z, torch.zeros_like(z))


def one(n: dict[str, Tensor], place: int = 0) -> dict[str, Tensor]:
    return {key: value[place : place + 1] for key, value in n.items()}


def target(losses: Tensor, reward: Tensor) -> Tensor:
    """m, from loss = softplus(m - reward)."""
    return reward + torch.log(torch.expm1(losses))


def same(one: Found, two: Found, tolerance: float = 1e-12) -> None:
    for actual, expected in zip(one, two, strict=True):
        close(actual, expected, tolerance)


def plain_margin(n: dict[str, Tensor], beta: float, margin: Tensor) -> Found:
    """SimPO's loss and gradients by summed log-probs for a margin that is held constant."""
    z = beta * gaps(n)[0] - margin
    slope = beta * torch.sigmoid(-z)
    return softplus(-z), -slope / wide(n["Lw"]), slope / wide(n["Ll"])


# AMaPO


def plain_amapo(n: dict[str, Tensor], beta: float, form: str) -> Found:
    u = gaps(n)[0].tolist()
    mean = sum(u) / len(u)
    std = math.sqrt(sum((x - mean) ** 2 for x in u) / (len(u) - 1))
    if form == "code":
        m = [beta * math.exp((mean - x) / std * mean) if x < mean else 0.0 for x in u]
    else:
        reward, level, spread = [beta * x for x in u], beta * mean, beta * std
        rise = [max((level - r) / spread * level, 0.0) for r in reward]
        m = [beta * math.exp(g) if g > 0 else 0.0 for g in rise]
    return plain_margin(n, beta, wide(m))


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize("seed", range(4))
def test_amapo_is_its_closed_form_and_holds_the_margin_still(form: str, seed: int) -> None:
    n = batch(seed=seed)
    same(gradients("amapo", {"beta": 2.7, "form": form}, **n), plain_amapo(n, 2.7, form))


@pytest.mark.parametrize(
    ("form", "margins", "losses"),
    [
        (
            "code",
            [0, 2.12241806, 2.53649344, 0],
            [0.43748795, 2.05891632, 2.98818551, 0.26328247],
        ),
        (
            "paper",
            [0, 2.25232921, 3.21689948, 0],
            [0.43748795, 2.17316128, 3.64341077, 0.26328247],
        ),
    ],
)
def test_amapo_worked_example(form: str, margins: list[float], losses: list[float]) -> None:
    u = wide([0.30, 0.10, -0.20, 0.60])
    found = evaluate("amapo", {"beta": 2.0, "form": form}, **of_gaps(u))
    close(found, losses, 1e-8)
    close(target(found, 2 * u), margins, 2e-8)


def test_amapo_margins_of_the_fixture_where_the_two_forms_are_opposites() -> None:
    u = gaps(FIXTURE)[0]
    assert u.mean() < 0
    code = target(evaluate("amapo", {"beta": 3.0}), 3 * u)
    paper = target(evaluate("amapo", {"beta": 3.0, "form": "paper"}), 3 * u)
    close(code, [0, 0, 0, 2.76242964], 1e-7)
    close(paper, [3.00505009, 3.26869761, 3.52068678, 0], 1e-7)


@pytest.mark.parametrize("shift", [-1.0, 1.0])
def test_amapo_margins_below_and_above_a_negative_and_a_positive_average(shift: float) -> None:
    u = wide([-0.5, -0.2, 0.1, 0.6]) + shift
    below = u < u.mean()
    code = target(evaluate("amapo", {"beta": 2.0}, **of_gaps(u)), 2 * u)
    paper = target(evaluate("amapo", {"beta": 2.0, "form": "paper"}, **of_gaps(u)), 2 * u)
    close(code[~below], torch.zeros(2), 1e-12)
    assert ((code[below] > 2) if shift > 0 else (code[below] < 2)).all()
    assert (code[below] > 0).all()
    none = below if shift < 0 else ~below
    close(paper[none], torch.zeros(2), 1e-12)
    assert (paper[~none] > 2).all()


def test_amapo_exponent_of_the_paper_is_beta_times_that_of_the_code() -> None:
    u = wide([0.30, 0.10, -0.20, 0.60])
    behind = u < u.mean()
    exponents = [
        (target(evaluate("amapo", {"beta": 2.6, "form": form}, **of_gaps(u)), 2.6 * u) / 2.6).log()
        for form in ("code", "paper")
    ]
    close(exponents[1][behind], 2.6 * exponents[0][behind])


def test_amapo_pair_that_is_not_behind_has_the_loss_of_simpo_without_gamma() -> None:
    n = batch(40)
    u = gaps(n)[0]
    ahead = u >= u.mean()
    found, simpo = gradients("amapo", **n), gradients("simpo", {"beta": 2.0, "gamma": 0.0}, **n)
    for actual, expected in zip(found, simpo, strict=True):
        close(actual[ahead], expected[ahead], 1e-14)
    assert (found[0] - simpo[0])[~ahead].min() > 0


@pytest.mark.parametrize("form", ["code", "paper"])
@pytest.mark.parametrize("pairs", [1, 2, 3, 7, 10])
def test_amapo_gives_equal_pairs_and_a_lone_one_no_margin(form: str, pairs: int) -> None:
    for gap in (0.1, -0.7, 0.3, 1.1, 0.0):  # the mean of ten times 0.1 is not 0.1
        n = of_gaps([gap] * pairs)
        simpo = gradients("simpo", {"beta": 2.0, "gamma": 0.0}, **n)
        same(gradients("amapo", {"form": form}, **n), simpo, 0)


@pytest.mark.parametrize("form", ["code", "paper"])
def test_amapo_of_shuffled_pairs_is_the_losses_shuffled(form: str) -> None:
    n, order = batch(9), torch.randperm(9, generator=torch.Generator().manual_seed(2))
    shuffled = {key: value[order] for key, value in n.items()}
    found = gradients("amapo", {"form": form}, **n)
    for actual, whole in zip(gradients("amapo", {"form": form}, **shuffled), found, strict=True):
        close(actual, whole[order], 1e-12)


def test_amapo_margin_jumps_from_beta_to_nothing_at_the_average() -> None:
    u = wide([0.0, 0.5 - 1e-9, 0.5, 1.0])
    m = target(evaluate("amapo", **of_gaps(u + wide([1e-9, 0, 0, 0]))), 2 * u)
    close(m[1], 2.0, 1e-7)
    close(m[2:], [0, 0], 1e-12)


def test_amapo_cap_holds_the_exponent_and_touches_none_below_it() -> None:
    n = batch()
    assert torch.equal(evaluate("amapo", **n), evaluate("amapo", {"cap": None}, **n))
    u = wide([500.0, 900.0, 1000.0])
    capped = evaluate("amapo", **of_gaps(u))
    close(target(evaluate("amapo", {"cap": 5.0}, **of_gaps(u)), 0 * u)[0] + 1000, 2 * math.exp(5))
    assert capped[0] == pytest.approx(2 * math.exp(80))
    # Without a cap the margins are beyond every float: then they are the largest one.
    for dtype in (torch.float32, torch.float64):
        answers = (u.to(dtype).requires_grad_(), torch.zeros(3, dtype=dtype))
        losses = load_method("amapo").losses(
            {"cap": None}, policy=PairLogProbs.from_totals(*answers)
        )
        assert losses[0] == torch.finfo(dtype).max
        assert torch.autograd.grad(losses[0], answers[0])[0].tolist() == [-2.0, 0.0, 0.0]


# AdaDPO


FORMS: dict[str, dict[str, float]] = {
    "dpo": {"beta": 0.3},
    "rdpo": {"beta": 0.3, "alpha": 0.02},
    "ipo": {"tau": 0.35},
    "simpo": {"beta": 0.3, "gamma": 0.4},
    "cpo": {"beta": 0.3, "nll": 0.6},
    "orpo": {"lambda_": 0.7, "nll": 0.6},
}
SPACES = [(form, space) for form in FORMS for space in ("policy", "ratio")]
SPACES.remove(("orpo", "ratio"))


def coefficient(
    n: dict[str, Any],
    space: str = "policy",
    ceiling: float | None = 2.0,
    *,
    per_token: bool = True,
    form: str = "dpo",
    exponent: float = 1.0,
) -> Tensor:
    """c, written with probabilities."""
    sides = []
    for s, r, length in (("sw", "rw", "Lw"), ("sl", "rl", "Ll")):
        tokens = wide(n[length]) if per_token else torch.ones_like(wide(n[length]))
        p = (wide(n[s]) / tokens).exp()
        p = p / (wide(n[r]) / tokens).exp() if space == "ratio" else p
        rest = 1 - (wide(n[s]) / wide(n[length])).exp() if form == "orpo" else 1.0
        sides.append(p * rest)
    c = (sides[0] / sides[1]) ** exponent
    return c if ceiling is None else c.clamp_max(ceiling)


def plain_adadpo(n: dict[str, Any], c: Tensor, form: str, p: dict[str, float]) -> Found:
    s_w, s_l, r_w, r_l, l_w, l_l = (wide(n[key]) for key in ("sw", "sl", "rw", "rl", "Lw", "Ll"))
    a_w, a_l = s_w / l_w, s_l / l_l
    beta, none = p.get("beta", math.nan), torch.zeros_like(s_w)
    if form == "ipo":
        off = c * (s_w - r_w) - (s_l - r_l) - 1 / (2 * p["tau"])
        return off**2, 2 * off * c, -2 * off
    if form in ("dpo", "rdpo"):
        z = beta * c * (s_w - r_w) - beta * (s_l - r_l)
        z = z + p["alpha"] * (l_w - l_l) if form == "rdpo" else z
        by_w, by_l = beta * c, beta + none
    elif form == "simpo":
        z = beta * c * a_w - beta * a_l - p["gamma"]
        by_w, by_l = beta * c / l_w, beta / l_l
    elif form == "cpo":
        z, by_w, by_l = beta * (c * s_w - s_l), beta * c, beta + none
    else:
        odds = [a - torch.log(1 - a.exp()) for a in (a_w, a_l)]
        z = c * odds[0] - odds[1]
        by_w, by_l = (1 / (length * (1 - a.exp())) for length, a in ((l_w, a_w), (l_l, a_l)))
        by_w = c * by_w
    weight = p["lambda_"] if form == "orpo" else 1.0
    nll = p["nll"] if form in ("cpo", "orpo") else 0.0
    slope, share = weight * torch.sigmoid(-z), nll / l_w.mean()
    return weight * softplus(-z) - share * s_w, -slope * by_w - share, slope * by_l


@pytest.mark.parametrize(("form", "space"), SPACES)
def test_adadpo_is_its_closed_form_and_holds_the_coefficient_still(form: str, space: str) -> None:
    for seed, ceiling in ((0, 1.2), (1, None), (2, 2.0)):
        n = batch(seed=seed)
        settings = {**FORMS[form], "form": form, "balance_space": space, "ceiling": ceiling}
        c = coefficient(n, space, ceiling, form=form)
        same(gradients("adadpo", settings, **n), plain_adadpo(n, c, form, FORMS[form]), 1e-10)


POLICY = [0.94445914, 1.04037719, 1.13314845, 0.70910618]
RATIO = [1.07916811, 0.9258127, 1.45499141, 0.97494424]


@pytest.mark.parametrize(("space", "coefficients"), [("policy", POLICY), ("ratio", RATIO)])
@pytest.mark.parametrize("ceiling", [2.0, None])
def test_adadpo_coefficients_of_the_fixture(
    space: str, coefficients: list[float], ceiling: float | None
) -> None:
    settings = {"balance_space": space, "ceiling": ceiling}
    _, chosen, rejected = gradients("adadpo", settings)
    close(-chosen / rejected, coefficients, 1e-8)


@pytest.mark.parametrize(
    ("space", "coefficients", "losses"),
    [
        ("policy", POLICY, [0.57837493, 0.889316, 0.39009013, 0.75321365]),
        ("ratio", RATIO, [0.57248096, 0.87254401, 0.39009013, 0.76452341]),
    ],
)
def test_adadpo_where_the_ceiling_binds_on_the_third_pair(
    space: str, coefficients: list[float], losses: list[float]
) -> None:
    settings = {"balance_space": space, "ceiling": 1.1}
    found, chosen, rejected = gradients("adadpo", settings)
    close(found, losses, 1e-8)
    close(-chosen / rejected, [*coefficients[:2], 1.1, coefficients[3]], 1e-8)


def test_adadpo_coefficient_without_a_ceiling_ends_at_exp_30() -> None:
    for below, c in ((29.0, 29.0), (30.0, 30.0), (31.0, 30.0), (1e4, 30.0)):
        for ceiling in (None, 1e30):
            at = at_reference(of_gaps([below]))
            _, chosen, rejected = gradients("adadpo", {"ceiling": ceiling}, **at)
            assert (-chosen / rejected).log().item() == pytest.approx(c, abs=1e-9)


def test_adadpo_ceiling_is_the_largest_coefficient_and_there_is_no_floor() -> None:
    n = batch(60)
    for ceiling in (0.5, 1.0, 1.3):
        _, chosen, rejected = gradients("adadpo", {"ceiling": ceiling}, **n)
        c = -chosen / rejected
        close(c.max(), ceiling, 1e-12)
        assert c.min() < 0.5


def test_adadpo_between_equally_likely_answers_is_dpo() -> None:
    n = batch()
    equal = {**n, "sl": n["sw"] / n["Lw"] * n["Ll"]}
    same(gradients("adadpo", **equal), gradients("dpo", **equal))


@pytest.mark.parametrize("per_token", [True, False])
def test_adadpo_in_the_ratio_space_is_dpo_at_the_reference(per_token: bool) -> None:
    at = at_reference(batch())
    settings = {"balance_space": "ratio", "per_token": per_token}
    same(gradients("adadpo", settings, **at), gradients("dpo", **at))
    assert (gradients("adadpo", **at)[1] - gradients("dpo", **at)[1]).abs().max() > 1e-3


def by_probability(settings: dict[str, Any], n: dict[str, Any], tokens: bool) -> list[Tensor]:
    """Slopes by the probability of each answer, or by the geometric mean over its tokens."""
    slopes = []
    for slope, s, length in zip(
        gradients("adadpo", settings, **n)[1:], ("sw", "sl"), ("Lw", "Ll"), strict=True
    ):
        power = n[length] if tokens else torch.ones_like(n[length])
        slopes.append(slope * power / (n[s] / power).exp())
    return slopes


def test_adadpo_balances_the_slopes_by_the_probabilities_of_the_answers() -> None:
    n = {**batch(), **{key: wide([1.0] * 12) for key in ("Lw", "Ll")}}
    n |= {key: n[key] / 20 for key in ("sw", "sl", "rw", "rl")}
    settings = {"per_token": False, "ceiling": None}
    chosen, rejected = by_probability(settings, n, tokens=False)
    close(chosen / rejected, [-1] * 12, 1e-10)
    # By central differences of the probabilities, the coefficient left alone.
    c, step = coefficient(n, ceiling=None, per_token=False), 1e-6
    moved = {}
    for key in ("sw", "sl"):
        sides = [{**n, key: torch.log(n[key].exp() + sign * step)} for sign in (1, -1)]
        losses = [plain_adadpo(side, c, "dpo", {"beta": 0.1})[0] for side in sides]
        moved[key] = (losses[0] - losses[1]) / (2 * step)
    close(moved["sw"], chosen, 1e-7)
    close(moved["sl"], rejected, 1e-7)


def test_adadpo_balances_the_slopes_per_token_by_geometric_means() -> None:
    n = {key: wide(value) for key, value in FIXTURE.items()}
    chosen, rejected = by_probability({"ceiling": None}, n, tokens=True)
    close((chosen / n["Lw"])[2], -0.1266066, 1e-7)
    close((rejected / n["Ll"])[2], 0.1266066, 1e-7)
    n = batch()
    chosen, rejected = by_probability({"ceiling": None}, n, tokens=True)
    close((chosen / n["Lw"]) / (rejected / n["Ll"]), [-1] * 12, 1e-10)
    # A ceiling that binds leaves the rejected answer the larger one.
    bound = coefficient(n, ceiling=None) > 1.05
    assert 0 < bound.sum() < 12
    chosen, rejected = by_probability({"ceiling": 1.05}, n, tokens=True)
    ratio = -(chosen / n["Lw"]) / (rejected / n["Ll"])
    close(ratio[~bound], [1] * int((~bound).sum()), 1e-10)
    assert (ratio[bound] < 1).all()


@pytest.mark.parametrize("settings", [{"form": "simpo"}, {"form": "orpo", "nll": 0.0}])
def test_adadpo_balances_losses_of_means_by_geometric_means(settings: dict[str, Any]) -> None:
    chosen, rejected = by_probability({**settings, "ceiling": None}, batch(), tokens=True)
    close(chosen / rejected, [-1] * 12, 1e-10)


@pytest.mark.parametrize("form", FORMS)
def test_adadpo_without_an_exponent_is_the_loss_that_its_form_names(form: str) -> None:
    n = batch()
    summed = {"reduction": "sum"} if form == "ipo" else {}
    # CPO's weight of the likelihood is its alpha; SimPO's beta is not that of the other forms.
    named = {{"nll": "alpha"}.get(k, k) if form == "cpo" else k: v for k, v in FORMS[form].items()}
    usual = {"beta": 2.0} if form == "simpo" else {}
    for here, there in ((FORMS[form], named), (usual, usual)):
        found = gradients("adadpo", {**here, "form": form, "exponent": 0.0}, **n)
        same(found, gradients(form, {**there, **summed}, **n))
        balanced = gradients("adadpo", {**here, "form": form}, **n)
        assert (balanced[1] - found[1]).abs().max() > 1e-3


def test_adadpo_exponent_is_a_power_of_the_ratio_under_the_same_ceiling() -> None:
    n = batch(30)
    for exponent in (0.5, 2.0):
        _, chosen, rejected = gradients("adadpo", {"exponent": exponent}, **n)
        close(-chosen / rejected, coefficient(n, exponent=exponent), 1e-10)
    assert (coefficient(n, ceiling=None, exponent=2.0) > 2).any()


def test_adadpo_over_whole_answers_stops_pulling_up_an_unlikely_long_one() -> None:
    n = one({key: wide(value) for key, value in FIXTURE.items()})
    n |= {key: wide([value]) for key, value in (("sw", -90), ("sl", -40), ("Lw", 60), ("Ll", 30))}
    ratio = {
        per_token: -(found[1] / found[2]).item()
        for per_token in (True, False)
        for found in [gradients("adadpo", {"per_token": per_token}, **n)]
    }
    assert ratio[True] == pytest.approx(math.exp(-90 / 60 + 40 / 30))
    assert ratio[False] == pytest.approx(math.exp(-50))


@pytest.mark.parametrize("form", FORMS)
def test_adadpo_reads_the_reference_only_where_something_is_compared_with_it(form: str) -> None:
    method = load_method("adadpo")
    needs = form in ("dpo", "rdpo", "ipo")
    assert ("reference" in method.narrowed({"form": form}).reads) == needs
    if form != "orpo":
        assert "reference" in method.narrowed({"form": form, "balance_space": "ratio"}).reads


@pytest.mark.parametrize(
    ("form", "setting"),
    [
        ("orpo", {"balance_space": "ratio"}),
        ("orpo", {"per_token": False}),
        ("simpo", {"per_token": False}),
        ("orpo", {"beta": 0.2}),
        ("ipo", {"beta": 0.2}),
    ],
)
def test_adadpo_refuses_what_its_form_does_not_use_or_is_not_derived_for(
    form: str, setting: dict[str, Any]
) -> None:
    with pytest.raises(RequestError, match=f"{next(iter(setting))}.*has no effect here"):
        load_method("adadpo").resolve({"form": form, **setting})


def test_adadpo_is_coupled_only_by_a_likelihood_over_the_tokens_of_a_step() -> None:
    method = load_method("adadpo")
    coupled = {form for form in FORMS if method.narrowed({"form": form}).coupled}
    assert coupled == {"cpo", "orpo"}
    assert not method.narrowed({"form": "cpo", "nll": 0.0}).coupled


def test_adadpo_of_ipo_overshoots_its_target() -> None:
    method = load_method("adadpo")
    assert method.narrowed({"form": "ipo"}).direction == "at_reference"
    n = {**one(batch()), "rw": wide([-40.0]), "rl": wide([-40.0]), "Lw": wide([30.0])}
    n |= {"sw": wide([-20.0]), "sl": wide([-60.0]), "Ll": wide([30.0])}
    _, chosen, rejected = gradients("adadpo", {"form": "ipo"}, **n)
    # With the ceiling, 2, as the coefficient: 2 * 20 + 20 is beyond the target, 5.
    close(chosen, [2 * 2 * (2 * 20 + 20 - 5)])
    close(rejected, [-2 * (2 * 20 + 20 - 5)])


def test_adadpo_at_the_reference_is_what_it_declares() -> None:
    at, method = at_reference(batch()), load_method("adadpo")
    for settings, expected in (
        ({}, math.log(2)),
        ({"balance_space": "ratio", "beta": 2.0}, math.log(2)),
        ({"form": "rdpo", "alpha": 0.0}, math.log(2)),
        ({"form": "ipo", "tau": 0.25}, 4.0),
    ):
        assert method.narrowed(settings).at_reference == pytest.approx(expected, abs=1e-15)
        close(evaluate("adadpo", settings, **at), [expected] * 12)
    assert method.narrowed({"form": "rdpo"}).at_reference is None
    assert method.narrowed({"form": "cpo"}).at_reference is None


@pytest.mark.parametrize(("form", "space"), SPACES)
def test_adadpo_without_a_ceiling_is_finite_in_single_precision(form: str, space: str) -> None:
    far = torch.tensor([-1e4, -1.0, -1e4, 0.0])
    answers = [far.clone().requires_grad_(), far.flip(0).clone().requires_grad_()]
    for per_token in (True,) if form in ("simpo", "orpo") else (True, False):
        losses = load_method("adadpo").losses(
            {"form": form, "balance_space": space, "ceiling": None, "per_token": per_token},
            policy=PairLogProbs.from_totals(answers[0], answers[1]),
            reference=PairLogProbs.from_totals(far.roll(1), far.roll(2)),
        )
        slopes = torch.autograd.grad(losses.sum(), answers)
        assert all(found.isfinite().all() for found in (losses, *slopes))


# Beta-DPO


LITERAL = {"statistics": "literal"}


def betas(losses: Tensor, n: dict[str, Any], kept: Tensor) -> Tensor:
    """The beta of each kept pair, from loss = all / kept * softplus(-beta * gap)."""
    share = kept.double().mean()
    return -torch.log(torch.expm1(losses[kept] * share)) / ratios(n)[kept]


def test_beta_dpo_of_the_fixture_from_statistics_of_zero() -> None:
    losses, after = advance("beta_dpo", {"rho": 1.0, **LITERAL})
    close(after["mean"], 0.115, 1e-8)
    close(after["std"], 0.46249324, 1e-8)
    close(betas(losses, FIXTURE, wide([1, 1, 1, 1]) > 0), [0.1621] * 4, 1e-8)


@pytest.mark.parametrize("statistics", ["corrected", "literal"])
def test_beta_dpo_is_its_closed_form_and_holds_beta_still(statistics: str) -> None:
    settings = {"beta": 0.2, "alpha": 0.05, "rho": 1.0, "decay": 0.7, "statistics": statistics}
    state, mean, std = begin("beta_dpo"), 0.0, 0.0
    for step in range(1, 4):
        n = batch(seed=step)
        gap = ratios(n).numpy()
        mean, std = 0.7 * mean + 0.3 * gap.mean(), 0.7 * std + 0.3 * gap.std(ddof=1)
        level = mean / (1 - 0.7**step) if statistics == "corrected" else mean
        used = max(1e-3, 0.2 * (1 + 0.05 * (gap.mean() - level)))
        same(gradients("beta_dpo", settings, state=state, **n), plain_dpo(n, used))
        _, state = advance("beta_dpo", settings, state=state, **n)
        close(state["mean"], mean)
        close(state["std"], std)
        assert state["steps"] == step


@pytest.mark.parametrize("statistics", ["corrected", "literal"])
def test_beta_dpo_without_alpha_and_with_all_pairs_is_dpo(statistics: str) -> None:
    settings = {"alpha": 0.0, "rho": 1.0, "beta": 0.25, "statistics": statistics}
    n = batch()
    same(gradients("beta_dpo", settings, **n), gradients("dpo", {"beta": 0.25}, **n), 1e-14)


def test_beta_dpo_in_a_first_corrected_step_with_all_pairs_is_dpo() -> None:
    n = batch()
    same(gradients("beta_dpo", {"rho": 1.0}, **n), gradients("dpo", **n))
    assert (
        evaluate("beta_dpo", {"rho": 1.0, **LITERAL}, **n) - evaluate("dpo", **n)
    ).abs().max() > 0.01


@pytest.mark.parametrize("statistics", ["corrected", "literal"])
def test_beta_dpo_has_one_beta_for_the_kept_pairs_and_their_mean_as_the_loss(
    statistics: str,
) -> None:
    n = batch(20)
    _, state = advance("beta_dpo", **batch(20, seed=1))
    settings = {"alpha": 0.02, "rho": 0.6, "statistics": statistics}
    losses, after = advance("beta_dpo", settings, state=state, seed=4, **n)
    kept = losses != 0
    assert kept.sum() == 12
    used = betas(losses, n, kept)
    level = after["mean"] / (1 - 0.9**2) if statistics == "corrected" else after["mean"]
    expected = 0.1 * (1 + 0.02 * (ratios(n)[kept].mean() - level))
    close(used, expected.expand(12), 1e-9)
    close(losses.mean(), evaluate("dpo", {"beta": expected.item()}, **n)[kept].mean())
    found = gradients("beta_dpo", settings, state=state, seed=4, **n)
    same(found, plain_dpo(n, expected, kept.double() * 20 / 12), 1e-10)


@pytest.mark.parametrize(
    ("pairs", "rho", "kept"),
    [
        (10, 0.8, 8),
        (5, 0.8, 4),
        (7, 0.8, 5),
        (64, 0.8, 51),
        (100, 0.29, 29),
        (3, 0.2, 1),
        (1, 0.5, 1),
    ],
)
def test_beta_dpo_keeps_the_whole_part_of_rho_times_the_pairs(
    pairs: int, rho: float, kept: int
) -> None:
    for seed in range(3):
        losses = evaluate("beta_dpo", {"rho": rho}, seed=seed, **batch(pairs))
        assert (losses > 0).sum() == kept


def inclusion(weights: np.ndarray, kept: int) -> np.ndarray:
    """How likely each is among `kept` successive draws without replacement; by enumeration."""
    found = np.zeros(len(weights))
    for order in itertools.permutations(range(len(weights)), kept):
        left, likely = weights.sum(), 1.0
        for place in order:
            likely, left = likely * weights[place] / left, left - weights[place]
        found[list(order)] += likely
    return found


def test_beta_dpo_draws_pairs_without_replacement_by_their_gaussian_weight() -> None:
    gap = wide([0.3, -2.0, 1.0, 4.0, -0.5])
    n = of_gaps(gap)
    _, after = advance("beta_dpo", {"rho": 0.6}, **n)
    z = (gap - gap.mean()) / gap.std()
    close((gap - after["mean"] / 0.1) / (after["std"] / 0.1), z)
    draws, loss, given = 2000, load_method("beta_dpo"), inputs(n)
    kept = np.zeros(5)
    for seed in range(draws):
        rng = torch.Generator().manual_seed(seed)
        losses, _ = loss(given["policy"], given["reference"], begin("beta_dpo"), rng, rho=0.6)
        kept += (losses > 0).numpy()
    share, expected = kept / draws, inclusion((-(z**2) / 2).exp().numpy(), 3)
    error = np.sqrt(expected * (1 - expected) / draws)
    assert (np.abs(share - expected) < 4 * error).all()
    # Equal weights, or those of one standard deviation's worth less, are far from that.
    assert (np.abs(share - 0.6) > 8 * error).sum() >= 2
    flat = inclusion((-(z**2) / 8).exp().numpy(), 3)
    assert (np.abs(share - flat) > 4 * error).any()


def test_beta_dpo_drops_an_outlier_whose_weight_no_float_can_hold() -> None:
    state: State = {"mean": wide(0.0), "std": wide(0.001), "steps": wide(500)}
    n = of_gaps([300.0, 0.1, 0.2, -0.1, 0.0])
    for seed in range(20):
        losses = evaluate("beta_dpo", {"decay": 0.9999}, state=state, seed=seed, **n)
        assert losses[0] == 0
        assert (losses[1:] > 0).all()


def test_beta_dpo_holds_beta_above_its_floor() -> None:
    state: State = {"mean": wide(500.0), "std": wide(1.0), "steps": wide(100)}
    n = batch()
    same(gradients("beta_dpo", {"rho": 1.0}, state=state, **n), plain_dpo(n, 1e-3))
    higher = {"rho": 1.0, "beta_min": 0.02}
    same(gradients("beta_dpo", higher, state=state, **n), plain_dpo(n, 0.02))


@pytest.mark.parametrize("statistics", ["corrected", "literal"])
def test_beta_dpo_at_the_reference_costs_log_2_in_the_mean(statistics: str) -> None:
    at, state = at_reference(batch(10)), begin("beta_dpo")
    for seed in range(3):
        settings = {"statistics": statistics}
        losses, state = advance("beta_dpo", settings, state=state, seed=seed, **at)
        close(losses.mean(), math.log(2))
        assert (losses == 0).sum() == 2
    assert state["std"] == 0
    # With no spread the draw is even, not always of the same places.
    kept = torch.stack([evaluate("beta_dpo", settings, seed=s, **at) > 0 for s in range(40)])
    assert (kept.any(0) & ~kept.all(0)).all()


@pytest.mark.parametrize("statistics", ["corrected", "literal"])
def test_beta_dpo_leaves_its_statistics_alone_for_a_lone_pair(statistics: str) -> None:
    settings, lone = {"statistics": statistics}, one(batch())
    losses, state = advance("beta_dpo", settings, **lone)
    assert {key: value.item() for key, value in state.items()} == load_method("beta_dpo").initial
    if statistics == "corrected":
        close(losses, evaluate("dpo", **lone))
    _, before = advance("beta_dpo", settings, **batch(seed=2))
    losses, after = advance("beta_dpo", settings, state=before, **lone)
    assert all(torch.equal(before[key], after[key]) for key in before)
    level = before["mean"] / 0.1 if statistics == "corrected" else before["mean"]
    used = max(1e-3, 0.1 * (1 + 0.6 * (ratios(lone) - level).item()))
    close(losses, evaluate("dpo", {"beta": used}, **lone))


def test_beta_dpo_takes_rounding_for_what_it_is() -> None:
    # Without the floor a pair that is off by rounding alone would be an outlier.
    n = of_gaps(1e-7 * wide([0.0] * 9 + [1.0]))
    dropped = [
        sum(evaluate("beta_dpo", settings, seed=s, **n)[9] == 0 for s in range(60))
        for settings in ({}, {"epsilon": 1e-12})
    ]
    assert dropped[0] < 25
    assert dropped[1] > 40


def test_beta_dpo_floor_of_the_spread_is_no_summand() -> None:
    n = batch(10)
    under = {"epsilon": 0.999 * ratios(n).std().item()}
    over = {"epsilon": 3 * ratios(n).std().item()}
    default, same_draws, other = (
        torch.stack([evaluate("beta_dpo", settings, seed=s, **n) > 0 for s in range(40)])
        for settings in ({}, under, over)
    )
    assert torch.equal(default, same_draws)
    assert not torch.equal(default, other)


# Gamma-PO


OWN = {"sample": 0}


def solved(gaps: Any, gamma: float, tau: float, steps: int = 20) -> np.ndarray:
    """The targets by exponentiated gradient on the distribution itself."""
    gaps = np.asarray(gaps, dtype=float)
    size, rate = len(gaps), min(0.5 / tau, 1)
    p = np.full(size, 1 / size)
    for _ in range(steps):
        slope = gamma * size / (1 + np.exp(gaps - gamma * size * p)) / size
        p = p * np.exp(-rate * (slope + tau * (1 + np.log(size * p))))
        p = p / p.sum()
    return gamma * size * p


def targets(settings: dict[str, Any], n: dict[str, Any], **more: Any) -> Tensor:
    beta = settings.get("beta", 10.0)
    return target(evaluate("gammapo", settings, **n, **more), beta * gaps(n)[0])


def test_gammapo_worked_example() -> None:
    n = of_gaps(wide([3.0, 1.0, -2.0, 6.0]) / 10)
    close(targets(OWN, n), [3.96755844, 3.64890305, 3.5592106, 4.82432791], 1e-8)


@pytest.mark.parametrize(
    "settings", [{}, {"tau": 0.2}, {"tau": 1.0, "steps": 7}, {"beta": 2.5, "gamma_beta_ratio": 0.9}]
)
def test_gammapo_is_its_closed_form_and_holds_the_target_still(settings: dict[str, Any]) -> None:
    n = batch()
    beta, ratio = settings.get("beta", 10.0), settings.get("gamma_beta_ratio", 0.4)
    margin = solved(
        beta * gaps(n)[0], beta * ratio, settings.get("tau", 10.0), settings.get("steps", 20)
    )
    found = gradients("gammapo", {**OWN, **settings}, **n)
    same(found, plain_margin(n, beta, wide(margin)), 1e-9)


def test_gammapo_form_dpo_takes_only_what_a_target_is_above_gamma() -> None:
    n = batch()
    settings = {**OWN, "form": "dpo", "beta": 0.3, "gamma_beta_ratio": 5.0, "tau": 2.0}
    reward = 0.3 * ratios(n)
    z = reward - wide(solved(reward, 1.5, 2.0)) + 1.5
    slope = 0.3 * torch.sigmoid(-z)
    same(gradients("gammapo", settings, **n), (softplus(-z), -slope, slope), 1e-10)


@pytest.mark.parametrize("sample", [0, 256])
def test_gammapo_tends_to_simpo_and_to_dpo_as_tau_grows(sample: int) -> None:
    n, wide_tau = batch(), {"tau": 1e10, "sample": sample}
    simpo = gradients("simpo", {"beta": 10.0, "gamma": 4.0}, **n)
    same(gradients("gammapo", wide_tau, **n), simpo, 1e-8)
    dpo = gradients("dpo", {"beta": 0.1}, **n)
    same(gradients("gammapo", {**wide_tau, "form": "dpo", "beta": 0.1}, **n), dpo, 1e-8)


def test_gammapo_targets_sum_to_gamma_per_gap_and_follow_the_gaps() -> None:
    n = batch(20)
    for tau in (0.3, 3.0, 20.0):
        found = targets({**OWN, "tau": tau}, n)
        close(found.mean(), 4.0)
        assert torch.equal(found.argsort(), gaps(n)[0].argsort())
    spread = [targets({**OWN, "tau": tau}, n).std().item() for tau in (1.0, 3.0, 10.0, 100.0)]
    assert spread == sorted(spread, reverse=True)


@pytest.mark.parametrize("tau", [0.3, 3.0, 10.0])
def test_gammapo_targets_are_where_no_shift_of_the_sum_costs_less(tau: float) -> None:
    n = batch(6)
    reward = 10 * gaps(n)[0]
    found = targets({**OWN, "tau": tau, "steps": 400}, n)
    # The slope of the objective by each share is one constant, the multiplier of the sum.
    slope = 4 * torch.sigmoid(found - reward) + tau * (found / 4).log()
    close(slope, slope.mean().expand(6), 1e-8)
    rough = targets({**OWN, "tau": tau, "steps": 1}, n)
    assert (rough - found).abs().max() > 1e-3


def test_gammapo_has_one_round_more_than_the_authors_whose_last_is_not_used() -> None:
    n = of_gaps(wide([3.0, 1.0, -2.0, 6.0]) / 10)
    theirs = [3.9675583, 3.6489029, 3.5592109, 4.8243278]
    authors = targets({**OWN, "steps": 19}, n)
    close(authors, solved([3.0, 1.0, -2.0, 6.0], 4.0, 10.0, 19), 1e-9)
    close(authors, theirs, 3e-7)
    assert 0 < (authors - targets(OWN, n)).abs().max() < 1e-6


def remembered(past: Any) -> State:
    past = wide(past)
    queue = torch.zeros(2048, dtype=torch.float64)
    queue[-len(past) :] = past
    return {"queue": queue, "filled": wide(len(past))}


def test_gammapo_first_step_has_eight_normal_gaps_and_remembers_its_own() -> None:
    seeded = []
    for seed in range(200):
        n = batch(5)
        losses, after = advance("gammapo", {"tau": 2.0}, seed=seed, **n)
        assert after["filled"] == 13
        assert (after["queue"][:-13] == 0).all()
        past, reward = after["queue"][-13:-5], 10 * gaps(n)[0]
        close(after["queue"][-5:], reward)
        expected = solved(torch.cat([past, reward]), 4.0, 2.0)[-5:]
        close(target(losses, reward), expected)
        seeded.append(past)
    again = advance("gammapo", seed=0, **batch(5))[1]["queue"][-13:-5]
    assert torch.equal(again, seeded[0])
    draws = torch.stack(seeded).flatten()
    assert abs(draws.mean()) < 4 / 40
    assert abs(draws.std() - 1) < 4 / math.sqrt(2 * 1600)
    assert len(draws.unique()) == 1600


def test_gammapo_balances_with_as_many_past_gaps_as_the_sample_has_places() -> None:
    n, past = batch(4), [1.0, -3.0, 2.5, 7.0, -6.0]
    reward = 10 * gaps(n)[0]
    settings = {"tau": 2.0, "sample": 4 + 3}
    drawn = [targets(settings, n, state=remembered(past), seed=seed).numpy() for seed in range(120)]
    possible = [
        solved([*reward, *three], 4.0, 2.0)[:4] for three in itertools.combinations(past, 3)
    ]
    hits = [[np.allclose(found, each, atol=1e-9) for each in possible] for found in drawn]
    assert all(sum(hit) == 1 for hit in hits)
    assert np.array(hits).any(0).all()


def test_gammapo_forgets_the_oldest_gaps_and_ignores_what_was_never_filled() -> None:
    n = batch(4)
    reward = 10 * gaps(n)[0]
    past = torch.linspace(-1, 1, 2046, dtype=torch.float64)
    _, after = advance("gammapo", state=remembered(past), **n)
    assert after["filled"] == 2048
    close(after["queue"], torch.cat([past[2:], reward]))
    # Zeros that were never filled in take no part: two past gaps, and places for all.
    found = targets({"tau": 2.0}, n, state=remembered([5.0, -5.0]))
    close(found, solved([*reward, 5.0, -5.0], 4.0, 2.0)[:4])


def test_gammapo_uses_no_past_gap_where_the_step_fills_the_sample() -> None:
    n, state = batch(9), remembered([50.0] * 20)
    for sample in (0, 5, 9):
        alone = evaluate("gammapo", OWN, **n)
        close(evaluate("gammapo", {"sample": sample}, state=state, **n), alone, 1e-14)
    assert (evaluate("gammapo", {"sample": 10}, state=state, **n) - alone).abs().max() > 1e-3


def test_gammapo_reads_the_reference_only_in_the_form_dpo_and_declares_its_first_loss() -> None:
    method = load_method("gammapo")
    assert "reference" not in method.reads
    settings = {**OWN, "form": "dpo", "beta": 0.1}
    assert "reference" in method.narrowed(settings).reads
    assert method.narrowed().at_reference is None
    assert method.narrowed(settings).at_reference == math.log(2)
    close(evaluate("gammapo", settings, **at_reference(batch())), [math.log(2)] * 12)
    assert method.narrowed({"form": "dpo"}).at_reference is None


# Dr. DPO


@pytest.mark.parametrize(("beta", "beta_prime"), [(0.1, 1.0), (0.4, 0.3), (0.05, 7.0)])
def test_dr_dpo_is_its_closed_form_and_weighs_by_trust(beta: float, beta_prime: float) -> None:
    n = batch()
    single, chosen, rejected = plain_dpo(n, beta)
    trust = (-single / beta_prime).exp()
    expected = -beta_prime * torch.log(trust.mean())
    losses, *slopes = gradients("dr_dpo", {"beta": beta, "beta_prime": beta_prime}, **n)
    close(losses, expected.expand(12))
    # The mean over the step is the loss: each pair's slope is its share of the sum times DPO's.
    weights = trust / trust.sum()
    close(slopes[0] / 12, weights * chosen)
    close(slopes[1] / 12, weights * rejected)
    close((slopes[0] / 12 / chosen).sum(), 1.0)
    assert torch.equal(weights.argsort(), single.argsort(descending=True))


def test_dr_dpo_tends_to_the_mean_and_to_the_minimum_of_the_losses() -> None:
    n = batch()
    dpo = gradients("dpo", **n)
    losses, chosen, rejected = gradients("dr_dpo", {"beta_prime": 1e6}, **n)
    close(losses, dpo[0].mean().expand(12), 1e-6)
    close(chosen, dpo[1], 1e-6)
    close(rejected, dpo[2], 1e-6)
    close(evaluate("dr_dpo", {"beta_prime": 1e-4}, **n), dpo[0].min().expand(12), 1e-3)
    assert (evaluate("dr_dpo", **n) < dpo[0].mean()).all()


def test_dr_dpo_of_one_pair_is_dpo() -> None:
    lone = one(batch())
    for beta_prime in (0.01, 1.0, 50.0):
        same(gradients("dr_dpo", {"beta_prime": beta_prime}, **lone), gradients("dpo", **lone))


def test_dr_dpo_is_exact_where_every_likelihood_is_below_the_smallest_float() -> None:
    n = of_gaps([-1e5, -2e5, -3e5])
    losses, chosen, _ = gradients("dr_dpo", {"beta": 1.0}, **n)
    close(losses, [1e5 + math.log(3)] * 3, 1e-9)
    close(chosen, [-3, 0, 0])


# MallowsPO


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("free", [True, False])
def test_mallowspo_is_its_closed_form(reduction: str, free: bool) -> None:
    n = batch()
    draw = torch.Generator().manual_seed(3)
    h_w, h_l = torch.rand(2, 12, generator=draw, dtype=torch.float64) * 0.9 + 0.05
    phi = -0.4 * torch.log((h_w + h_l) / 2)
    l_w, l_l = (wide(n[key]) if reduction == "mean" else wide([1.0] * 12) for key in ("Lw", "Ll"))
    base = [torch.zeros(12)] * 2 if free else [n["rw"], n["rl"]]
    z = 1.7 * phi * ((n["sw"] - base[0]) / l_w - (n["sl"] - base[1]) / l_l)
    slope = 1.7 * phi * torch.sigmoid(-z)
    settings = {"beta": 1.7, "c": 0.4, "reduction": reduction, "reference_free": free}
    found = gradients("mallowspo", settings, **n, Hw=h_w, Hl=h_l)
    same(found, (softplus(-z), -slope / l_w, slope / l_l), 1e-10)


def test_mallowspo_with_a_constant_phi_is_dpo_and_simpo() -> None:
    n, share = batch(), wide([0.13] * 12)
    phi = -0.29 * math.log(0.13)
    as_dpo = {"beta": 0.2, "reference_free": False, "reduction": "sum"}
    found = gradients("mallowspo", as_dpo, **n, Hw=share, Hl=share)
    same(found, gradients("dpo", {"beta": 0.2 * phi}, **n))
    found = gradients("mallowspo", **n, Hw=share, Hl=share)
    same(found, gradients("simpo", {"beta": 10 * phi, "gamma": 0.0}, **n))
    assert load_method("mallowspo").reads == ("policy", "entropy")


def test_mallowspo_takes_the_log_of_the_mean_entropy_not_the_mean_of_the_logs() -> None:
    n = batch()
    low, high, middle = (wide([value] * 12) for value in (0.05, 0.45, 0.25))
    even = evaluate("mallowspo", **n, Hw=middle, Hl=middle)
    close(evaluate("mallowspo", **n, Hw=low, Hl=high), even)
    close(evaluate("mallowspo", **n, Hw=high, Hl=low), even)


def test_mallowspo_teaches_most_where_the_reference_is_sure_and_nothing_where_it_is_not() -> None:
    n = {key: value.expand(5) for key, value in one(batch()).items()}
    share = wide([0.0, 1e-3, 0.5, 1.0, 1.0 + 1e-6])
    losses, chosen, rejected = gradients("mallowspo", {"beta": 0.5}, **n, Hw=share, Hl=share)
    assert all(found.isfinite().all() for found in (losses, chosen, rejected))
    close(losses[3:], [math.log(2)] * 2, 1e-15)
    close(chosen[3:], [0, 0], 0)
    assert (chosen[:3] < 0).all()
    reward = 0.5 * 0.29 * gaps(n)[0][0]
    close(losses[0], softplus(reward * math.log(1e-6)))


def test_mallowspo_at_the_reference_costs_log_2_where_it_reads_one() -> None:
    settings = {"reference_free": False}
    assert load_method("mallowspo").narrowed(settings).at_reference == math.log(2)
    assert load_method("mallowspo").narrowed().at_reference is None
    close(evaluate("mallowspo", settings, **at_reference(batch())), [math.log(2)] * 12)


# WPO


def weights(n: dict[str, Any], c_w: Tensor, c_l: Tensor) -> Tensor:
    own = (n["sw"] / n["Lw"] - c_w).exp() * (n["sl"] / n["Ll"] - c_l).exp()
    return own


@pytest.mark.parametrize("clamp", [True, False])
def test_wpo_is_its_closed_form_and_holds_the_weight_still(clamp: bool) -> None:
    n = batch()
    draw = torch.Generator().manual_seed(5)
    c_w, c_l = -1.5 + 0.4 * torch.randn(2, 12, generator=draw, dtype=torch.float64)
    w = weights(n, c_w, c_l)
    assert 3 < (w > 1).sum() < 10
    w = w.clamp_max(1.0) if clamp else w
    found = gradients("wpo", {"beta": 0.3, "clamp": clamp}, **n, Cw=c_w, Cl=c_l)
    same(found, plain_dpo(n, 0.3, w))


@pytest.mark.parametrize("clamp", [True, False])
def test_wpo_under_a_uniform_policy_is_dpo(clamp: bool) -> None:
    vocabulary = 50
    flat = torch.full((2, 6, vocabulary), 1 / vocabulary, dtype=torch.float64)
    agree = (flat**2).sum(-1).log().sum(-1)  # summed over the 6 tokens of an answer
    own = flat[..., 0].log().sum(-1).requires_grad_()
    length = wide([6.0, 6.0])
    policy = PairLogProbs.from_totals(own, own.detach() + 0, length, length)
    reference = PairLogProbs.from_totals(wide([-20.0, -30.0]), wide([-25.0, -24.0]), length, length)
    losses = load_method("wpo").losses(
        {"clamp": clamp, "beta": 0.1},
        policy=policy,
        reference=reference,
        confidence=PairLogProbs.from_totals(agree, agree, length, length),
    )
    close(losses, load_method("dpo").losses(policy=policy, reference=reference), 1e-12)


def test_wpo_weighs_tokens_not_lengths() -> None:
    n = batch()
    low = {"Cw": wide([-1.0] * 12), "Cl": wide([-1.2] * 12)}
    twice = {key: 2 * n[key] for key in ("sw", "sl", "rw", "rl", "Lw", "Ll")}
    short = evaluate("wpo", {"beta": 0.2}, **n, **low)
    close(evaluate("wpo", {"beta": 0.1}, **{**n, **twice}, **low), short)


def test_wpo_authors_clamp_the_product_of_both_weights() -> None:
    n = batch()
    c_w, c_l = n["sw"] / n["Lw"] - math.log(3), n["sl"] / n["Ll"] + math.log(2)
    dpo = evaluate("dpo", {"beta": 0.01}, **n)
    close(evaluate("wpo", **n, Cw=c_w, Cl=c_l), dpo)
    close(evaluate("wpo", {"clamp": False}, **n, Cw=c_w, Cl=c_l), 1.5 * dpo)
    c_l = n["sl"] / n["Ll"] + math.log(6)
    close(evaluate("wpo", **n, Cw=c_w, Cl=c_l), 0.5 * dpo)


def test_wpo_without_the_clamp_weighs_at_most_exp_80() -> None:
    n = one(batch())
    dpo = evaluate("dpo", {"beta": 0.01}, **n)
    for excess, exponent in ((79.0, 79.0), (81.0, 80.0), (1e4, 80.0)):
        low = {"Cw": n["sw"] / n["Lw"] - excess, "Cl": n["sl"] / n["Ll"]}
        found = evaluate("wpo", {"clamp": False}, **n, **low)
        assert (found / dpo).log().item() == pytest.approx(exponent, abs=1e-9)


# What all of these share


@pytest.mark.parametrize(
    ("name", "key", "value", "interval"),
    [
        ("amapo", "cap", -1.0, "[0, inf)"),
        ("adadpo", "ceiling", 0.0, "(0, inf)"),
        ("beta_dpo", "rho", 0.0, "(0, 1]"),
        ("beta_dpo", "rho", 1.2, "(0, 1]"),
        ("beta_dpo", "beta_min", 0.0, "(0, inf)"),
        ("gammapo", "tau", 0.0, "(0, inf)"),
        ("gammapo", "steps", 0, "[1, inf)"),
        ("dr_dpo", "beta_prime", 0.0, "(0, inf)"),
        ("mallowspo", "c", 0.0, "(0, inf)"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    name: str, key: str, value: float, interval: str
) -> None:
    with pytest.raises(RequestError) as refusal:
        load_method(name).resolve({key: value})
    assert f"'{name}.{key}' must lie in {interval}" in str(refusal.value)


@pytest.mark.parametrize("name", ["alphadpo", "beta_dpo"])
def test_the_authors_statistics_have_no_floor_that_could_be_set(name: str) -> None:
    with pytest.raises(RequestError, match=f"{name}.epsilon' has no effect here"):
        load_method(name).resolve({"statistics": "literal", "epsilon": 0.01})


@pytest.mark.parametrize("name", ["beta_dpo", "gammapo"])
def test_the_next_state_is_new_in_shape_and_kind_as_before_and_the_old_one_untouched(
    name: str,
) -> None:
    _, state = advance(name, **batch(seed=1))
    kept = {key: value.clone() for key, value in state.items()}
    _, after = advance(name, state=state, **batch(seed=2))
    assert after.keys() == load_method(name).initial.keys() == state.keys()
    for key, value in after.items():
        assert torch.equal(state[key], kept[key])
        assert value.dtype == torch.float64
        assert value.shape == kept[key].shape
    given = {**inputs({**FIXTURE}), "state": state}
    single = {
        key: PairLogProbs.from_totals(torch.randn(4), torch.randn(4))
        for key in ("policy", "reference")
    }
    reads = load_method(name).reads
    losses, _ = load_method(name).losses(**{key: {**given, **single}[key] for key in reads})
    assert losses.dtype == torch.float32
