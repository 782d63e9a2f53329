"""Variants of DPO that change its sums, its shape or its reference: closed forms, limits, facts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.api import LogProbs, PairLogProbs, RequestError

from .numbers import (
    FIXTURE,
    advance,
    batch,
    begin,
    close,
    evaluate,
    gradients,
    load_method,
    log_ratios,
    plain_dpo,
    ratios,
    wide,
)

LOG2 = math.log(2)
Plain = tuple[Tensor, Tensor, Tensor]
"""Losses, and the gradients of their sum by the summed log-probs of chosen and rejected."""


def sigma(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def numbers_for(chosen: Any, rejected: Any) -> dict[str, Tensor]:
    """Fixture numbers with the given log-ratios h_w and h_l."""
    h_w, h_l = wide(chosen), wide(rejected)
    zero = torch.zeros_like(h_w)
    return {
        "sw": h_w - 50, "rw": zero - 50, "sl": h_l - 60, "rl": zero - 60,
        "Lw": zero + 30, "Ll": zero + 35, "hphi": zero, "KLw": zero, "KLl": zero,
    }  # fmt: skip


# Closed forms: each loss and its gradients once more, written plainly


def plain_ln_dpo(n: Any, beta: float = 5.0) -> Plain:
    h_w, h_l = log_ratios(n)
    z = beta * (h_w / n["Lw"] - h_l / n["Ll"])
    slope = beta * sigma(-z)
    return -torch.log(sigma(z)), -slope / n["Lw"], slope / n["Ll"]


def plain_ld_dpo(n: Any, beta: float = 0.1, alpha: float = 0.5) -> Plain:
    # The helper spreads a total evenly over its tokens, so the shared part is a share of it.
    shared = torch.minimum(n["Lw"], n["Ll"])
    kept_w, kept_l = (alpha + (1 - alpha) * shared / n[key] for key in ("Lw", "Ll"))
    h_w, h_l = log_ratios(n)
    z = beta * (kept_w * h_w - kept_l * h_l)
    return -torch.log(sigma(z)), -beta * kept_w * sigma(-z), beta * kept_l * sigma(-z)


def plain_exo(
    n: Any, beta: float = 0.1, epsilon: float = math.exp(-10), form: str = "code"
) -> Plain:
    z = beta * ratios(n)
    q = sigma(z)
    rest = sigma(-z)
    label = 1 - epsilon if form == "paper" else 1.0
    losses = q * torch.log(q / label) + rest * torch.log(rest / epsilon)
    slope = beta * q * rest * (z - math.log(label / epsilon))
    return losses, slope, -slope


def plain_nca(n: Any, beta: float = 0.01) -> Plain:
    w, el = (beta * h for h in log_ratios(n))
    losses = -torch.log(sigma(w)) - torch.log(sigma(-w)) / 2 - torch.log(sigma(-el)) / 2
    return losses, beta * (sigma(w) / 2 - sigma(-w)), beta * sigma(el) / 2


def plain_bco(n: Any, beta: float = 0.01, shift: str = "running", reduction: str = "mean") -> Plain:
    w, el = (beta * h for h in log_ratios(n))
    delta = (w.sum() + el.sum()) / (2 * len(w)) if shift == "running" else 0.0
    share = 0.5 if reduction == "mean" else 1.0
    losses = share * (torch.log(1 + torch.exp(delta - w)) + torch.log(1 + torch.exp(el - delta)))
    return losses, -share * beta * sigma(delta - w), share * beta * sigma(el - delta)


def plain_sppo_hard(n: Any, beta: float = 1e-3, form: str = "code") -> Plain:
    share = 0.5 if form == "code" else 1.0
    w, el = log_ratios(n)
    w, el = w - 1 / (2 * beta), el + 1 / (2 * beta)
    return share * (w * w + el * el), 2 * share * w, 2 * share * el


def plain_aot(n: Any, beta: float = 0.01) -> Plain:
    gaps = (wide(n["sw"]) - wide(n["sl"])).tolist()
    targets = sorted((wide(n["rw"]) - wide(n["rl"])).tolist())
    z = beta * wide([gap - targets[sorted(gaps).index(gap)] for gap in gaps])
    return -torch.log(sigma(z)), -beta * sigma(-z), beta * sigma(-z)


def plain_aot_unpaired(n: Any, beta: float = 0.01) -> Plain:
    chosen, rejected = (h.tolist() for h in log_ratios(n))
    rank = [sorted(chosen).index(h) for h in chosen]
    z = beta * wide([h - sorted(rejected)[k] for h, k in zip(chosen, rank, strict=True)])
    # The pair whose rejected answer was compared with pair i's chosen one gets i's slope.
    partner = [rank.index(sorted(rejected).index(h)) for h in rejected]
    return -torch.log(sigma(z)), -beta * sigma(-z), beta * sigma(-z)[partner]


def plain_apo_zero(n: Any, beta: float = 0.1) -> Plain:
    w, el = (sigma(beta * h) for h in log_ratios(n))
    return 1 - w + el, -beta * w * (1 - w), beta * el * (1 - el)


def plain_apo_down(n: Any, beta: float = 0.1) -> Plain:
    w, gap = sigma(beta * log_ratios(n)[0]), sigma(beta * ratios(n))
    slope = beta * gap * (1 - gap)
    return w + 1 - gap, beta * w * (1 - w) - slope, slope


def plain_discopop(n: Any, beta: float = 0.05, tau: float = 0.05) -> Plain:
    x = beta * ratios(n)
    m = sigma(x / tau)
    losses = (1 - m) * -torch.log(sigma(x)) + m * torch.exp(-x)
    rise = m * (1 - m) / tau * (torch.exp(-x) + torch.log(sigma(x)))
    slope = beta * (rise - (1 - m) * sigma(-x) - m * torch.exp(-x))
    return losses, slope, -slope


def plain_dpo_nll(
    n: Any, beta: float = 0.1, alpha: float = 1.0, reduction: str = "tokens"
) -> Plain:
    losses, chosen, rejected = plain_dpo(n, beta)
    length = n["Lw"].sum() / len(n["Lw"]) if reduction == "tokens" else n["Lw"]
    return losses - alpha * wide(n["sw"]) / length, chosen - alpha / length, rejected


def plain_tr_dpo(n: Any, beta: float = 0.1, alpha: float = 0.6, tau: int = 512) -> Plain:
    return plain_dpo(n, beta)


PLAIN: tuple[tuple[str, Callable[..., Plain], dict[str, Any]], ...] = (
    ("ln_dpo", plain_ln_dpo, {"beta": 2.3}),
    ("ld_dpo", plain_ld_dpo, {"beta": 0.3, "alpha": 0.2}),
    ("exo", plain_exo, {"beta": 0.3, "epsilon": 0.02}),
    ("exo", plain_exo, {"beta": 0.2, "epsilon": 0.1, "form": "paper"}),
    ("nca", plain_nca, {"beta": 0.2}),
    ("bco", plain_bco, {"beta": 0.2}),
    ("bco", plain_bco, {"beta": 0.2, "reduction": "sum"}),
    ("bco", plain_bco, {"beta": 0.2, "shift": "none"}),
    ("sppo_hard", plain_sppo_hard, {"beta": 0.02}),
    ("sppo_hard", plain_sppo_hard, {"beta": 0.02, "form": "trl"}),
    ("aot", plain_aot, {"beta": 0.2}),
    ("aot_unpaired", plain_aot_unpaired, {"beta": 0.2}),
    ("apo_zero", plain_apo_zero, {"beta": 0.2}),
    ("apo_down", plain_apo_down, {"beta": 0.2}),
    ("discopop", plain_discopop, {"beta": 0.1, "tau": 0.3}),
    ("dpo_nll", plain_dpo_nll, {"beta": 0.2, "alpha": 0.3}),
    ("dpo_nll", plain_dpo_nll, {"beta": 0.2, "alpha": 0.3, "reduction": "mean"}),
    ("tr_dpo", plain_tr_dpo, {"beta": 0.2, "alpha": 0.3, "tau": 7}),
)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("defaults", [True, False])
@pytest.mark.parametrize(("name", "plain", "settings"), PLAIN)
def test_losses_and_gradients_are_those_of_the_closed_form(
    name: str, plain: Callable[..., Plain], settings: dict[str, Any], defaults: bool, seed: int
) -> None:
    given = {} if defaults else settings
    numbers = batch(seed=seed)
    for actual, expected in zip(
        gradients(name, given, **numbers), plain(numbers, **given), strict=True
    ):
        torch.testing.assert_close(actual, expected, rtol=1e-11, atol=1e-11)


# LN-DPO, LD-DPO and SamPO: what a length does


def test_ln_dpo_on_equal_lengths_is_dpo_with_beta_over_the_length() -> None:
    n = batch()
    for length in (1.0, 7.0):
        lengths = torch.full_like(n["Lw"], length)
        same = {**n, "Lw": lengths, "Ll": lengths}
        expected = gradients("dpo", {"beta": 3.5 / length}, **same)
        found = gradients("ln_dpo", {"beta": 3.5}, **same)
        for actual, wanted in zip(found, expected, strict=True):
            close(actual, wanted, 1e-12)


def tokens(
    lengths: tuple[tuple[int, int], ...] = ((9, 4), (3, 8), (6, 6), (7, 1)), seed: int = 0
) -> tuple[PairLogProbs, PairLogProbs]:
    """Policy and reference, random per token; the policy's values take a gradient."""
    draw = torch.Generator().manual_seed(seed)

    def side(which: int) -> LogProbs:
        counts = torch.tensor([pair[which] for pair in lengths])
        mask = torch.arange(int(counts.max())) < counts.unsqueeze(-1)
        return LogProbs(-torch.rand(mask.shape, generator=draw, dtype=torch.float64) * 3, mask)

    policy, reference = PairLogProbs(side(0), side(1)), PairLogProbs(side(0), side(1))
    for answers in (policy.chosen, policy.rejected):
        answers.values.requires_grad_()
    return policy, reference


def losses_of(name: str, policy: PairLogProbs, reference: PairLogProbs, **settings: Any) -> Tensor:
    """Losses on tokens, with the generator of seed 0 for a method that draws."""
    drawn = {"rng": torch.Generator().manual_seed(0)} if name == "sampo" else {}
    losses = load_method(name).losses(settings, policy=policy, reference=reference, **drawn)
    assert isinstance(losses, Tensor)
    return losses


def slopes(losses: Tensor, policy: PairLogProbs) -> tuple[Tensor, Tensor]:
    """Gradients of the losses' sum by the log-prob of every token of chosen and rejected."""
    leaves = [policy.chosen.values, policy.rejected.values]
    chosen, rejected = torch.autograd.grad(losses.sum(), leaves)
    return chosen, rejected


@pytest.mark.parametrize("settings", [{}, {"alpha": 0.3}])
def test_ld_dpo_discounts_the_tail_of_the_longer_answer_alone(settings: dict[str, float]) -> None:
    policy, reference = tokens()
    slope = slopes(losses_of("ld_dpo", policy, reference, **settings), policy)
    shared = torch.minimum(policy.chosen.length, policy.rejected.length)
    for answers, found in zip((policy.chosen, policy.rejected), slope, strict=True):
        for row, keep in enumerate(shared.int().tolist()):
            first = found[row, 0].expand(keep)
            rest = int(answers.length[row]) - keep
            close(found[row, :keep], first, 0)
            tail = found[row, keep : keep + rest]
            close(tail, settings.get("alpha", 0.5) * found[row, 0].expand(rest), 1e-15)


def test_ld_dpo_counts_tokens_and_not_columns() -> None:
    # The same tokens in every other of twice the columns.
    def spread(side: LogProbs) -> LogProbs:
        gap = torch.full_like(side.values, math.nan)
        values = torch.stack((gap, side.values.detach()), 2).flatten(1)
        return LogProbs(values, torch.stack((gap > 0, side.mask), 2).flatten(1))

    def both(answers: PairLogProbs) -> PairLogProbs:
        return PairLogProbs(spread(answers.chosen), spread(answers.rejected))

    policy, reference = tokens()
    expected = losses_of("ld_dpo", policy, reference)
    close(losses_of("ld_dpo", both(policy), both(reference)), expected, 1e-14)


def test_ld_dpo_without_a_tail_does_not_see_what_comes_after_the_shared_part() -> None:
    policy, reference = tokens()
    expected = losses_of("ld_dpo", policy, reference, alpha=0.0).detach()
    before = losses_of("ld_dpo", policy, reference).detach()
    with torch.no_grad():
        policy.chosen.values[0, 4:] -= 5
        policy.rejected.values[1, 3:] += 5
    close(losses_of("ld_dpo", policy, reference, alpha=0.0).detach(), expected, 1e-14)
    assert ((losses_of("ld_dpo", policy, reference) - before).abs() > 1e-3)[:2].all()


@pytest.mark.parametrize(
    ("name", "settings", "lengths"),
    [
        ("ld_dpo", {"alpha": 1.0}, ((9, 4), (3, 8), (7, 1))),
        ("ld_dpo", {"alpha": 0.2}, ((9, 9), (3, 3), (1, 1))),
        ("sampo", {}, ((9, 9), (3, 3), (1, 1))),
        ("sampo", {"shared": True}, ((9, 9), (3, 3), (1, 1))),
    ],
)
def test_without_tails_ld_dpo_and_sampo_are_dpo(
    name: str, settings: dict[str, Any], lengths: tuple[tuple[int, int], ...]
) -> None:
    policy, reference = tokens(lengths)
    for beta in (0.1, 0.7):
        found = losses_of(name, policy, reference, beta=beta, **settings)
        expected = losses_of("dpo", policy, reference, beta=beta)
        assert torch.equal(found, expected)
        for actual, wanted in zip(slopes(found, policy), slopes(expected, policy), strict=True):
            close(actual, wanted, 1e-15)


def kept(answers: PairLogProbs, losses: Tensor) -> tuple[Tensor, Tensor]:
    """Which tokens of these answers a loss read."""
    chosen, rejected = slopes(losses, answers)
    return chosen != 0, rejected != 0


@pytest.mark.parametrize("shared", [False, True])
def test_sampo_keeps_all_of_the_shorter_and_as_many_of_the_longer_answer(shared: bool) -> None:
    policy, reference = tokens()
    losses = losses_of("sampo", policy, reference, shared=shared)
    read = kept(policy, losses)
    shortest = torch.minimum(policy.chosen.length, policy.rejected.length)
    for answers, used in zip((policy.chosen, policy.rejected), read, strict=True):
        assert not (used & ~answers.mask).any()
        assert torch.equal(used.sum(-1), shortest.long())
    assert read[0][0].sum() < policy.chosen.length[0]


@pytest.mark.parametrize("shared", [False, True])
def test_sampo_is_dpo_on_the_kept_tokens(shared: bool) -> None:
    policy, reference = tokens()
    for answers in (reference.chosen, reference.rejected):
        answers.values.requires_grad_()
    losses = losses_of("sampo", policy, reference, beta=0.3, shared=shared)
    leaves = [s.values for side in (policy, reference) for s in (side.chosen, side.rejected)]
    used = [slope != 0 for slope in torch.autograd.grad(losses.sum(), leaves)]
    totals = [(leaf * mask).sum(-1) for leaf, mask in zip(leaves, used, strict=True)]
    z = 0.3 * (totals[0] - totals[2] - totals[1] + totals[3])
    close(losses.detach(), -torch.log(sigma(z.detach())), 1e-12)
    # The same positions under policy and reference if shared, and only then.
    same = torch.equal(used[0], used[2]) and torch.equal(used[1], used[3])
    assert same == shared


def test_sampo_draws_every_token_of_the_longer_answer_equally_often() -> None:
    policy, reference = tokens(((8, 3),) * 4000)
    used, shorter = kept(policy, losses_of("sampo", policy, reference))
    share = used.double().mean(0)
    assert shorter.all()
    # Five standard errors of a share of 3 in 8.
    assert (share - 3 / 8).abs().max() < 5 * math.sqrt(3 / 8 * 5 / 8 / 4000)
    # No pair of neighbours is likelier than another: (3/8) * (2/7).
    both = (used[:, :-1] & used[:, 1:]).double().mean(0)
    assert (both - 6 / 56).abs().max() < 5 * math.sqrt(6 / 56 * 50 / 56 / 4000)


def test_sampo_draws_for_tokens_and_not_for_columns() -> None:
    def pushed(answers: PairLogProbs, columns: int) -> PairLogProbs:
        return PairLogProbs(
            *(
                LogProbs(
                    torch.nn.functional.pad(side.values.detach(), (columns, 2), value=math.nan),
                    torch.nn.functional.pad(side.mask, (columns, 2)),
                )
                for side in (answers.chosen, answers.rejected)
            )
        )

    policy, reference = tokens()
    for shared in (False, True):
        expected = losses_of("sampo", policy, reference, shared=shared)
        # Policy and reference need not be padded alike.
        found = losses_of("sampo", pushed(policy, 3), pushed(reference, 1), shared=shared)
        close(found, expected, 1e-14)


def test_sampo_at_the_reference_is_log_2_if_and_only_if_the_draw_is_shared() -> None:
    policy, _ = tokens()
    losses = losses_of("sampo", policy, policy.detach(), shared=True)
    close(losses.detach(), [LOG2] * 4, 0)
    apart = losses_of("sampo", policy, policy.detach())
    assert ((apart - LOG2).abs() > 1e-3)[[0, 1, 3]].all()
    assert load_method("sampo").narrowed().at_reference is None
    assert load_method("sampo").narrowed({"shared": True}).at_reference == LOG2


# EXO


@pytest.mark.parametrize(
    ("form", "best"), [("code", 4.0), ("paper", 4.0 + math.log1p(-math.exp(-4)))]
)
def test_exo_is_smallest_where_the_policy_agrees_with_the_smoothed_label(
    form: str, best: float
) -> None:
    gap = wide([best - 0.1, best, best + 0.1]) / 0.3
    settings = {"beta": 0.3, "epsilon": math.exp(-4), "form": form}
    losses, chosen, rejected = gradients("exo", settings, **numbers_for(gap, [0.0] * 3))
    assert losses[1] < losses[0]
    assert losses[1] < losses[2]
    assert chosen[0] < -1e-6 < 1e-6 < chosen[2]
    close([chosen[1], rejected[1]], [0, 0], 1e-12)
    if form == "paper":  # a divergence: 0 where both are the same, and nowhere below
        close(losses[1], 0, 1e-12)


def test_exo_as_coded_differs_from_the_paper_by_q_log_1_minus_epsilon() -> None:
    n = batch()
    settings = {"beta": 0.2, "epsilon": 0.1}
    code = evaluate("exo", settings, **n)
    paper = evaluate("exo", {**settings, "form": "paper"}, **n)
    close(paper - code, -sigma(0.2 * ratios(n)) * math.log(0.9), 1e-14)


def test_exo_in_the_authors_code_takes_log_epsilon_for_minus_10() -> None:
    z = 0.1 * ratios(FIXTURE)
    q = sigma(z)
    close(evaluate("exo"), q * torch.log(q) + (1 - q) * (torch.log(1 - q) + 10), 1e-12)


def test_exo_has_no_slope_far_away_on_either_side() -> None:
    far = numbers_for([1e4, -1e4], [-1e4, 1e4])
    losses, chosen, rejected = gradients("exo", **far)
    close([*chosen, *rejected], [0.0] * 4, 0)
    # Of a certain and right, and of a certain and wrong policy: log(1 / 1), log(1 / epsilon).
    close(losses, [0, 10], 1e-12)


# NCA, BCO, SPPO: answers on their own


def test_nca_draws_the_chosen_reward_to_log_2_and_the_rejected_one_down_for_ever() -> None:
    rewards = wide([LOG2 - 0.1, LOG2, LOG2 + 0.1, 50.0, -50.0])
    n = numbers_for(rewards / 0.2, rewards / 0.2)
    _, chosen, rejected = gradients("nca", {"beta": 0.2}, **n)
    assert chosen[0] < -1e-4
    close(chosen[1], 0, 1e-15)
    assert (chosen[2:4] > 1e-3).all()
    assert (rejected > 0).all()


@pytest.mark.parametrize("name", ["nca", "bco", "sppo_hard", "apo_zero"])
def test_answers_do_not_meet_in_a_loss_of_single_answers(name: str) -> None:
    settings = {"shift": "none"} if name == "bco" else {}
    n = batch()
    other = {**n, "sl": n["sl"] - 7, "rl": n["rl"] + 2}
    close(gradients(name, settings, **n)[1], gradients(name, settings, **other)[1], 0)
    other = {**n, "sw": n["sw"] - 7, "rw": n["rw"] + 2}
    close(gradients(name, settings, **n)[2], gradients(name, settings, **other)[2], 0)


def test_bco_shifts_by_the_mean_of_all_rewards_so_far_with_equal_weights() -> None:
    state, seen = begin("bco"), torch.empty(0, dtype=torch.float64)
    for seed, size in enumerate((3, 12, 5)):
        n = batch(size, seed)
        losses, state = advance("bco", {"beta": 0.3}, state=state, **n)
        chosen, rejected = (0.3 * h for h in log_ratios(n))
        seen = torch.cat((seen, chosen, rejected))
        delta = seen.sum() / len(seen)
        close(state["mean"], delta, 1e-12)
        close(state["count"], len(seen), 0)
        both = -torch.log(sigma(chosen - delta)) - torch.log(sigma(delta - rejected))
        close(losses, both / 2, 1e-12)


def test_bco_counts_narrow_rewards_in_full_precision() -> None:
    totals = [torch.tensor([value / 3, value / 7]) for value in (-1.0, -5.0, -2.0, -4.0)]
    policy, reference = (PairLogProbs.from_totals(*two) for two in (totals[:2], totals[2:]))
    state = {"mean": wide(0.1 / 3), "count": wide(7)}
    _, after = load_method("bco").losses(policy=policy, reference=reference, state=state)
    rewards = 0.01 * torch.cat((totals[0] - totals[2], totals[1] - totals[3]))
    assert after["mean"].dtype == after["count"].dtype == torch.float64
    close(after["mean"], (7 * 0.1 / 3 + rewards.double().sum()) / 11, 1e-15)


def test_bco_does_not_see_what_the_first_step_has_in_common() -> None:
    n = batch()
    moved = {**n, "rw": n["rw"] - 11, "rl": n["rl"] - 11}
    close(evaluate("bco", {"beta": 0.3}, **moved), evaluate("bco", {"beta": 0.3}, **n), 1e-12)
    none = {"beta": 0.3, "shift": "none"}
    assert ((evaluate("bco", none, **moved) - evaluate("bco", none, **n)).abs() > 1e-3).all()


def test_bco_without_a_shift_remembers_nothing() -> None:
    narrow = load_method("bco").narrowed({"shift": "none"})
    assert narrow.reads == ("policy", "reference")
    assert narrow.initial is None
    assert load_method("bco").reads == ("policy", "reference", "state")
    assert advance("bco", {"shift": "none"})[1] == {}


def test_sppo_hard_is_0_at_its_targets() -> None:
    at_targets = numbers_for([500.0, 501.0], [-500.0, -500.0])
    close(evaluate("sppo_hard", **at_targets), [0.0, 0.5], 1e-12)


# AOT


@pytest.mark.parametrize("name", ["aot", "aot_unpaired"])
def test_aot_of_a_single_pair_is_dpo(name: str) -> None:
    n = batch(1)
    for actual, expected in zip(
        gradients(name, {"beta": 0.3}, **n), gradients("dpo", {"beta": 0.3}, **n), strict=True
    ):
        close(actual, expected, 1e-14)


@pytest.mark.parametrize(("name", "keys"), [("aot", ("rw", "rl")), ("aot_unpaired", ("sl", "rl"))])
def test_aot_does_not_see_which_pair_a_sorted_quantity_belongs_to(
    name: str, keys: tuple[str, str]
) -> None:
    n = batch()
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    # Lengths play no part in sums; they stay where they are.
    moved = {**n, **{key: n[key][order] for key in keys}}
    close(evaluate(name, **moved), evaluate(name, **n), 1e-14)
    assert (evaluate("dpo", **moved) - evaluate("dpo", **n)).abs().max() > 1e-2


@pytest.mark.parametrize("name", ["aot", "aot_unpaired"])
def test_aot_where_both_orders_agree_is_dpo(name: str) -> None:
    # Gaps, reference gaps, chosen and rejected log-ratios all in the same order.
    rising = torch.arange(5, dtype=torch.float64) ** 2
    zero = torch.zeros(5, dtype=torch.float64)
    n = {
        "sw": 3 * rising - 90, "rw": rising - 80, "sl": rising - 85, "rl": 0.5 * rising - 87,
        "Lw": zero + 30, "Ll": zero + 35, "hphi": zero, "KLw": zero, "KLl": zero,
    }  # fmt: skip
    order = torch.tensor([2, 0, 4, 1, 3])
    n = {key: value[order] for key, value in n.items()}
    close(evaluate(name, {"beta": 0.1}, **n), evaluate("dpo", **n), 1e-14)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", ["aot", "aot_unpaired"])
def test_aot_is_never_above_dpo_on_average_because_sorting_costs_least(
    name: str, seed: int
) -> None:
    n = batch(seed=seed)
    sorted_, paired = evaluate(name, {"beta": 0.3}, **n), evaluate("dpo", {"beta": 0.3}, **n)
    assert sorted_.mean() < paired.mean() - 1e-3


# APO


def test_apo_zero_pushes_a_chosen_answer_up_whatever_the_rejected_one_does() -> None:
    far = numbers_for([0.0] * 3, [0.0, -1e3, 1e3])
    close(gradients("apo_zero", **far)[1], [-0.025] * 3, 1e-12)
    # Where DPO is done with the pair, or sees nothing but it.
    close(gradients("dpo", **far)[1], [-0.05, 0.0, -0.1], 1e-12)


def test_apo_down_is_flat_for_the_chosen_answer_until_the_rejected_one_has_fallen() -> None:
    _, chosen, rejected = gradients("apo_down", **numbers_for([0.0, 0.0, 0.0], [0.0, -5.0, -20.0]))
    assert abs(float(chosen[0])) < 1e-15
    assert 1e-4 < chosen[1] < chosen[2]
    assert (rejected > 0).all()
    # With the rejected answer at the reference, the loss is 1 wherever the chosen one is.
    close(evaluate("apo_down", **numbers_for([-9.0, 3.0, 50.0], [0.0] * 3)), [1.0] * 3, 1e-12)


def test_apo_zero_is_kto_that_measures_from_zero() -> None:
    n, none = batch(), torch.zeros(2, 12, dtype=torch.float64)
    kto = gradients("kto", {"beta": 0.3, "reduction": "sum"}, mismatched=none, **n)
    for actual, expected in zip(gradients("apo_zero", {"beta": 0.3}, **n), kto, strict=True):
        close(actual, expected, 1e-14)


def test_apo_down_lowers_the_rejected_answer_more_near_the_reference() -> None:
    near = torch.linspace(-3, 3, 7, dtype=torch.float64)
    grid = torch.cartesian_prod(near, near)
    _, chosen, rejected = gradients("apo_down", **numbers_for(*grid.T))
    assert (rejected > 2 * chosen.abs()).all()
    # One that has fallen takes the chosen answer with it.
    assert (chosen[(grid[:, 0] >= 0) & (grid[:, 1] < 0)] > 0).all()


@pytest.mark.parametrize("name", ["apo_zero", "apo_down"])
def test_apo_lies_between_0_and_2(name: str) -> None:
    corners = numbers_for([1e4, 1e4, -1e4, -1e4], [1e4, -1e4, 1e4, -1e4])
    expected = {"apo_zero": [1.0, 0.0, 2.0, 1.0], "apo_down": [1.5, 1.0, 1.0, 0.5]}[name]
    close(evaluate(name, **corners), expected, 1e-12)


# DiscoPOP


def test_discopop_pushes_the_fourth_pair_of_the_fixture_the_wrong_way() -> None:
    _, chosen, rejected = gradients("discopop")
    assert (chosen[:3] < 0).all()
    assert chosen[3] > 0.02 > -0.02 > rejected[3]


@pytest.mark.parametrize("beta", [0.05, 0.3])
def test_discopop_at_the_reference_falls_only_for_a_wide_blend(beta: float) -> None:
    edge = (1 - LOG2) / 3
    for tau, sign in ((0.05, 1), (edge - 1e-3, 1), (edge, 0), (edge + 1e-3, -1), (1.0, -1)):
        _, chosen, rejected = gradients(
            "discopop", {"beta": beta, "tau": tau}, **numbers_for([0.0], [0.0])
        )
        expected = beta * ((1 - LOG2) / (4 * tau) - 0.75)
        close(chosen, [expected], 1e-14)
        close(rejected, [-expected], 1e-14)
        assert sign == (0 if abs(expected) < 1e-14 else math.copysign(1, expected))


def test_discopop_with_a_narrow_blend_is_logistic_below_and_exponential_above() -> None:
    gap = wide([-30.0, -2.0, 2.0, 30.0])
    n = numbers_for(gap, [0.0] * 4)
    x = 0.1 * gap
    expected = [*-torch.log(sigma(x[:2])), *torch.exp(-x[2:])]
    close(evaluate("discopop", {"beta": 0.1, "tau": 1e-3}, **n), expected, 1e-12)


def test_discopop_keeps_the_exponential_within_its_share_of_the_blend() -> None:
    far = numbers_for([-1e4, 1e4], [1e4, -1e4])
    for tau in (0.05, 0.5, 1.0):
        losses, chosen, rejected = gradients("discopop", {"tau": tau}, **far)
        # 1000 nats of reward: DPO's loss; at tau 1 the exponential adds exactly 1.
        close(losses, [1000.0 + (tau == 1.0), 0.0], 1e-9)
        close(chosen, [-0.05, 0.0], 1e-12)
        close(rejected, [0.05, 0.0], 1e-12)


# DPO + NLL


def test_dpo_nll_adds_the_mean_over_all_chosen_tokens_of_the_step() -> None:
    n = batch()
    added = evaluate("dpo_nll", {"alpha": 0.7}, **n) - evaluate("dpo", **n)
    close(added.mean(), -0.7 * n["sw"].sum() / n["Lw"].sum(), 1e-12)
    # A token of a long answer counts as much as one of a short answer, but for what DPO adds.
    slope = gradients("dpo_nll", {"alpha": 0.7}, **n)[1] - gradients("dpo", **n)[1]
    close(slope, slope[:1].expand(12), 1e-15)


@pytest.mark.parametrize(
    ("name", "settings", "coupled"),
    [
        ("dpo_nll", {}, True),
        ("dpo_nll", {"reduction": "mean"}, False),
        ("dpo_nll", {"alpha": 0.0}, False),
        ("bco", {}, True),
        ("bco", {"shift": "none"}, False),
    ],
)
def test_pairs_are_coupled_only_by_what_is_averaged_over_the_step(
    name: str, settings: dict[str, Any], coupled: bool
) -> None:
    assert load_method(name).narrowed(settings).coupled is coupled
    n = batch(seed=9)
    half = {key: value[:6] for key, value in n.items()}
    alone, together = evaluate(name, settings, **half), evaluate(name, settings, **n)[:6]
    assert torch.allclose(alone, together, rtol=0, atol=1e-12) is not coupled


def test_dpo_nll_per_pair_adds_the_mean_over_each_answer() -> None:
    n = batch()
    settings = {"alpha": 0.7, "reduction": "mean"}
    added = evaluate("dpo_nll", settings, **n) - evaluate("dpo", **n)
    close(added, -0.7 * n["sw"] / n["Lw"], 1e-12)
    lengths = torch.full_like(n["Lw"], 9.0)
    same = {**n, "Lw": lengths}
    tokens_ = evaluate("dpo_nll", {"alpha": 0.7}, **same)
    close(evaluate("dpo_nll", settings, **same), tokens_, 1e-12)


def test_dpo_nll_without_nll_is_dpo_and_with_it_has_no_constant_at_the_reference() -> None:
    n = batch()
    expected = evaluate("dpo", {"beta": 0.3}, **n)
    close(evaluate("dpo_nll", {"alpha": 0.0, "beta": 0.3}, **n), expected, 0)
    assert load_method("dpo_nll").narrowed().at_reference is None


# TR-DPO


def test_tr_dpo_is_dpo_against_the_reference_of_the_moment() -> None:
    n = batch()
    expected = evaluate("dpo", {"beta": 0.3}, **n)
    for settings in ({}, {"alpha": 1.0}, {"tau": 1}):
        close(evaluate("tr_dpo", {"beta": 0.3, **settings}, **n), expected, 0)
    moving = load_method("tr_dpo").moving_reference
    assert moving == ("alpha", "tau")
    assert [load_method("tr_dpo").defaults[key] for key in moving] == [0.6, 512]


# Refusals


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("exo", {"epsilon": 0.0}),  # an infinite divergence
        ("exo", {"epsilon": 0.5}),  # a label that prefers nothing
        ("ld_dpo", {"alpha": 1.1}),
        ("ld_dpo", {"alpha": -0.1}),
        ("discopop", {"tau": 1.01}),  # overflows
        ("discopop", {"tau": 0.0}),
        ("sppo_hard", {"beta": 0.0}),  # targets at infinity
        ("dpo_nll", {"alpha": -1.0}),
        ("tr_dpo", {"alpha": 0.0}),  # a reference that never moves
        ("tr_dpo", {"alpha": 1.5}),
        ("tr_dpo", {"tau": 0}),
        ("tr_dpo", {"tau": 1.5}),
        ("exo", {"form": "trl"}),
        ("bco", {"shift": "ema"}),
    ],
)
def test_a_setting_that_means_nothing_is_refused(name: str, settings: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=next(iter(settings))):
        load_method(name).resolve(settings)
