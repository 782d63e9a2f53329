"""One optimizer step is the same for any split into micro-batches, and is the loss's gradient."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import logsigmoid

from harness.budget import ModelSize
from harness.contracts.logprobs import PairLogProbs, PairTokens
from harness.contracts.method import Method, State, method
from harness.data.tokens import TokenPair
from harness.engine.engines import (
    NOTHING,
    Also,
    Columns,
    Sequences,
    oracle,
    padded,
    pair_columns,
    pair_logprobs,
)
from harness.errors import GateError
from harness.registry import load_method
from harness.train.ledger import Ledger, payer
from harness.train.loop import Optimisation, fit, order
from harness.train.parts import alone, join, micro_batches, tokens
from harness.train.policy import adapt, without_dropout
from harness.train.run import Run
from harness.train.step import Learner

from .models import CPU, make_run, some_pairs, tiny, write_caches

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

PAIRS, PER_STEP = 24, 8
LORA = {"rank": 4, "alpha": 8.0, "targets": "all-linear"}
# Without an epsilon far above rounding Adam makes whole steps of gradients that are all noise.
ADAM = Optimisation(1e-3, warmup=0.0, epsilon=1e-3)

# One method for each way in which a loss hangs together with its step or asks for more than
# log-probs, and settings under which one behaves differently. `harness check` asks it of all.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    **{
        name: (name, {})
        for name in (
            "dpo", "simpo", "madpo", "alphadpo", "amapo", "aot", "bco", "beta_dpo", "cpo", "dr_dpo",
            "gammapo", "kto", "mallowspo", "odpo", "sampo", "tdpo", "tr_dpo", "wpo",
        )
    },
    "madpo, wide": ("madpo", {"c_max": 4.0, "c_min": 0.25}),
    "alphadpo, literal": ("alphadpo", {"statistics": "literal"}),
    "gammapo, dpo": ("gammapo", {"form": "dpo", "beta": 0.1}),
    "adadpo, simpo": ("adadpo", {"form": "simpo"}),
    "tdpo, 1": ("tdpo", {"form": "tdpo1"}),
}  # fmt: skip


@method(source="for these tests", coupled=True)
def standardised(policy: PairLogProbs, *, beta: float = 1.0) -> Tensor:
    """Hinge on gaps in standard deviations of the step: the gradient passes the statistics."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    return -logsigmoid(beta * (gap - gap.mean()) / (gap.std() + 0.1) + gap)


@method(source="for these tests")
def flipped(policy: PairLogProbs, rng: torch.Generator, *, share: float = 0.3) -> Tensor:
    """Labels of a random share of the pairs are turned round."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    sign = 1 - 2 * (torch.rand(len(gap), generator=rng) < share).to(gap)
    return -logsigmoid(sign * gap)


@method(source="for these tests", initial={"total": 0.0})
def remembers(policy: PairLogProbs, state: State) -> tuple[Tensor, State]:
    """The target grows with the mean gap so far; the state still hangs on a graph."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    return -logsigmoid(gap - state["total"].detach()), {"total": state["total"] + gap.mean()}


@method(source="for these tests")
def chosen_only(policy: PairLogProbs) -> Tensor:
    """Supervised: the rejected answer has no gradient at all."""
    return -policy.chosen.mean()


@method(source="for these tests")
def rewarding(policy: PairLogProbs, rewards: tuple[Tensor, Tensor]) -> Tensor:
    """Each side pulled by its own reward."""
    return -(rewards[0] * policy.chosen.mean() + rewards[1] * policy.rejected.mean())


@method(source="for these tests", coupled=True)
def drifting(policy: PairLogProbs, divergence: PairTokens, confidence: PairTokens) -> Tensor:
    """Drift in units of the step's mean drift: what else carries a gradient, in two passes."""
    drift = divergence.chosen.total() - 2 * divergence.rejected.total()
    scale = divergence.chosen.total().mean() + 1
    return -logsigmoid(policy.chosen.mean()) + drift / scale * confidence.chosen.mean().exp()


OWN = {m.name: m for m in (drifting, standardised, flipped, remembers, chosen_only, rewarding)}
ALL = [*METHODS, *OWN]


def find(name: str) -> tuple[Method, dict[str, Any]]:
    if name in OWN:
        return OWN[name], {}
    return load_method(METHODS[name][0]), METHODS[name][1]


@pytest.fixture(scope="module")
def pairs() -> list[TokenPair]:
    """Long and short ones in turn, so that micro-batches have other widths than the step."""
    short, long = (
        some_pairs(PAIRS // 2, seed=1, answer=3),
        some_pairs(PAIRS // 2, seed=2, answer=14),
    )
    return [pair for two in zip(short, long, strict=True) for pair in two]


@pytest.fixture(scope="module")
def inputs(pairs: list[TokenPair], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """Caches of a reference that is not the policy: at the reference much is zero by chance."""
    return write_caches(tmp_path_factory.mktemp("caches"), pairs, tiny(seed=1))


def policy(lora: bool) -> Any:
    return without_dropout(adapt(tiny(), LORA if lora else None, seed=0))


def trained(
    name: str,
    pairs: list[TokenPair],
    inputs: Mapping[str, Path],
    scratch: Path,
    *,
    micro: int,
    lora: bool = False,
    engine: Any = padded,
) -> tuple[dict[str, Tensor], State | None, list[float]]:
    """Parameters, state and losses after three steps."""
    which, settings = find(name)
    model = policy(lora)
    run = make_run(
        which, model, pairs, inputs, micro=micro, settings=settings, engine=engine,
        reference=tiny(seed=1),
    )  # fmt: skip
    state, history = fit(
        model, order(PAIRS, 1, PER_STEP, seed=0), run.objective(), ADAM, scratch=scratch,
        checkpoint_steps=100, report=lambda *_: None, state=run.start(),
    )  # fmt: skip
    moved = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
    return moved, state, history.losses


def apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).detach().abs().max()) for name in one)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", ALL)
def test_the_split_into_micro_batches_changes_no_parameter(
    name: str, lora: bool, pairs: list[TokenPair], inputs: Mapping[str, Path], tmp_path: Path
) -> None:
    start = {n: p for n, p in policy(lora).named_parameters() if p.requires_grad}
    whole, state, losses = trained(name, pairs, inputs, tmp_path / "8", micro=8, lora=lora)
    assert apart(start, whole) > 1e-4  # three steps have moved something
    # 3 leaves a last micro-batch of two.
    for micro in (4, 1, 3):
        parts, after, curve = trained(
            name, pairs, inputs, tmp_path / str(micro), micro=micro, lora=lora
        )
        assert apart(whole, parts) <= 1e-6
        assert curve == pytest.approx(losses, abs=1e-5, rel=1e-5)
        assert (after or {}).keys() == (state or {}).keys()
        for key, value in (state or {}).items():
            torch.testing.assert_close((after or {})[key], value, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["alphadpo", "standardised", "flipped", "remembers"])
def test_a_wrong_split_would_be_seen(
    name: str,
    pairs: list[TokenPair],
    inputs: Mapping[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole, _, _ = trained(name, pairs, inputs, tmp_path / "8", micro=8)
    monkeypatch.setattr(Method, "whole_step", property(lambda _: False))
    parts, _, _ = trained(name, pairs, inputs, tmp_path / "2", micro=2)
    assert apart(whole, parts) > 1e-5


def test_only_losses_that_hang_together_need_the_whole_step() -> None:
    names = ("dpo", "simpo", "madpo", "alphadpo", *OWN)
    whole = {name for name in names if find(name)[0].whole_step}
    assert whole == {"alphadpo", "drifting", "standardised", "flipped", "remembers"}


def gradient(run: Run, rows: list[int], state: State | None) -> tuple[dict[str, Tensor], float]:
    run.learner.model.zero_grad()
    loss, _ = run.objective()(0, rows, state)
    model = run.learner.model
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}, loss


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("micro", [2, 100])
def test_the_gradient_is_that_of_the_plain_mean_loss(
    name: str, micro: int, lora: bool, pairs: list[TokenPair], inputs: Mapping[str, Path]
) -> None:
    which, settings = find(name)
    run = make_run(
        which, policy(lora), pairs, inputs, micro=micro, settings=settings, reference=tiny(seed=1)
    )
    rows = [3, 0, 11, 7, 20]
    mine, loss = gradient(run, rows, run.start())
    # By hand: all of it in one graph, the oracle's log-probs, no cotangents.
    model = run.learner.model
    given = run.given(rows, step=0)
    if "state" in run.method.reads:
        given["state"] = run.start()
    names = tuple(name for name in ("confidence", "divergence") if name in run.method.reads)
    seen = pair_columns(
        oracle, model, [pairs[row] for row in rows], Also(names, run.learner.reference)
    )
    losses = which.losses(settings, policy=seen.pop("logprobs"), **seen, **given)
    losses = losses[0] if isinstance(losses, tuple) else losses
    model.zero_grad()
    torch.autograd.backward(losses.mean())
    assert loss == pytest.approx(float(losses.detach().mean()), abs=1e-5, rel=1e-5)
    plain = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert mine.keys() == plain.keys()
    scale = max(float(g.abs().max()) for g in plain.values())
    assert scale > 1e-4
    assert apart(mine, plain) <= 1e-5 * max(1.0, scale)


def test_a_gradient_is_added_to_what_is_there(
    pairs: list[TokenPair], inputs: Mapping[str, Path]
) -> None:
    run = make_run(load_method("dpo"), tiny(), pairs, inputs)
    once, _ = gradient(run, [0, 1, 2], None)
    run.objective()(0, [0, 1, 2], None)
    for name, parameter in run.learner.model.named_parameters():
        torch.testing.assert_close(parameter.grad, 2 * once[name])


def test_a_step_moves_its_own_way(pairs: list[TokenPair], inputs: Mapping[str, Path]) -> None:
    """Down its own gradient a loss gets smaller, by what the gradient's length foretells."""
    run = make_run(load_method("dpo"), tiny(), pairs, inputs, micro=3)
    rows = list(range(8))
    slope, before = gradient(run, rows, None)
    length = float(sum((g**2).sum() for g in slope.values())) ** 0.5
    rate = 1e-3 / length
    with torch.no_grad():
        for name, parameter in run.learner.model.named_parameters():
            parameter.sub_(rate * slope[name])
    _, after = gradient(run, rows, None)
    assert before - after == pytest.approx(rate * length**2, rel=0.1)


def test_no_pair_is_lost_when_the_last_micro_batch_is_smaller(
    pairs: list[TokenPair], inputs: Mapping[str, Path]
) -> None:
    run = make_run(load_method("dpo"), tiny(), pairs, inputs, micro=3)
    result = run.learner.accumulate_gradient(
        pairs[:8], lambda within: run.ingredients.rows(list(within), 0), None
    )
    assert result.losses.shape == (8,)
    assert not result.losses.requires_grad
    with torch.no_grad():
        each = [float(run.losses([row], run.see([row]), None)) for row in range(8)]
    assert result.losses.tolist() == pytest.approx(each, abs=1e-5)
    together = pair_logprobs(oracle, run.learner.model, pairs[:8])
    with torch.no_grad():
        seen = run.see(range(8))["policy"]
    assert torch.equal(seen.chosen.mask, together.chosen.mask)
    assert torch.equal(seen.rejected.length, together.rejected.length)
    torch.testing.assert_close(seen.chosen.total(), together.chosen.total())


@pytest.mark.parametrize(("name", "forwards"), [("dpo", 3), ("alphadpo", 6)])
def test_no_more_than_a_micro_batch_has_a_graph(
    name: str, forwards: int, pairs: list[TokenPair], inputs: Mapping[str, Path]
) -> None:
    calls: list[tuple[int, bool]] = []

    def watched(model: Any, sequences: Sequences, also: Also = NOTHING) -> Columns:
        calls.append((len(sequences), torch.is_grad_enabled()))
        return padded(model, sequences, also)

    run = make_run(load_method(name), tiny(), pairs, inputs, micro=3, engine=watched)
    run.objective()(0, list(range(8)), run.start())
    # Two answers a pair; a coupled loss looks at the whole step first, without a graph.
    with_graph = [(6, True), (6, True), (4, True)]
    assert calls == [(size, False) for size, _ in with_graph] * (forwards == 6) + with_graph


# ---- Micro-batches by tokens


def of_lengths(*lengths: tuple[int, int, int]) -> list[TokenPair]:
    return [
        TokenPair(str(i), (3,) * prompt, (4,) * chosen, (5,) * rejected)
        for i, (prompt, chosen, rejected) in enumerate(lengths)
    ]


def test_micro_batches_are_full_by_pairs_or_by_tokens() -> None:
    ten = [(4, 3, 3)] * 5
    assert micro_batches(of_lengths(*ten), 2, 1000) == [range(2), range(2, 4), range(4, 5)]
    assert micro_batches(of_lengths(*ten), 9, 30) == [range(3), range(3, 5)]
    assert micro_batches(of_lengths(*ten), 9, 29) == [range(2), range(2, 4), range(4, 5)]
    assert micro_batches(of_lengths(*ten), 9, 50) == [range(5)]
    assert micro_batches([], 9, 50) == []


def test_a_pair_that_is_too_long_goes_alone_and_whole() -> None:
    some = of_lengths((1, 1, 1), (50, 30, 30), (1, 1, 1), (1, 1, 1), (10, 10, 11))
    assert micro_batches(some, 9, 30) == [range(1), range(1, 2), range(2, 4), range(4, 5)]
    assert tokens(some[1]) == 110  # its prompt once
    steps = [[0, 1], [2, 4], [4, 4]]
    sentence = "2 pairs are longer than budget.micro_tokens = 30 and went alone"
    assert alone(some, steps, 30) == sentence
    assert alone(some, steps[:1], 30) == sentence.replace("2 pairs are", "1 pair is")
    assert alone(some, steps, 110) is None
    assert alone(some, [[0, 2]], 30) is None


@given(
    lengths=st.lists(st.integers(1, 12), max_size=20),
    most_pairs=st.integers(1, 6),
    most_tokens=st.integers(1, 40),
)
def test_micro_batches_are_everything_in_order_and_as_few_as_can_be(
    lengths: list[int], most_pairs: int, most_tokens: int
) -> None:
    some = of_lengths(*((n, 1, 2) for n in lengths))
    found = micro_batches(some, most_pairs, most_tokens)
    assert [i for batch in found for i in batch] == list(range(len(some)))
    sizes = [sum(lengths[i] + 3 for i in batch) for batch in found]
    for batch, size in zip(found, sizes, strict=True):
        assert 1 <= len(batch) <= most_pairs
        assert size <= most_tokens or len(batch) == 1
    for batch, size, after in zip(found, sizes, found[1:], strict=False):
        first = lengths[after[0]] + 3
        assert len(batch) == most_pairs or size + first > most_tokens


@pytest.mark.parametrize("name", ["dpo", "alphadpo", "kto", "tr_dpo", "drifting", "flipped"])
def test_the_split_by_tokens_changes_no_gradient_and_holds_its_limit(
    name: str, pairs: list[TokenPair], inputs: Mapping[str, Path]
) -> None:
    largest: list[int] = []

    def watched(model: Any, sequences: Sequences, also: Also = NOTHING) -> Columns:
        half = len(sequences) // 2
        answers = sum(len(answer) for _, answer in sequences)
        largest.append(answers + sum(len(prompt) for prompt, _ in sequences[:half]))
        return padded(model, sequences, also)

    which, settings = find(name)
    rows, limit = list(range(8)), 60
    assert max(tokens(pairs[row]) for row in rows) <= limit
    found = []
    for most in (10_000, limit):
        run = make_run(
            which, policy(False), pairs, inputs, micro=8, settings=settings, engine=watched,
            reference=tiny(seed=1),
        )  # fmt: skip
        learner = replace(run.learner, micro_tokens=most)
        live = Run.of(learner, inputs, "train", where=CPU, seed=0)
        found.append(gradient(live, rows, live.start()))
        if most > limit:
            assert max(largest) > limit
            largest.clear()
    assert len(largest) > 1
    assert max(largest) <= limit
    assert apart(found[0][0], found[1][0]) <= 1e-5
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-5, rel=1e-5)


def test_a_coupled_step_is_billed_twice_where_its_tokens_or_pairs_make_it_two() -> None:
    some = of_lengths((4, 3, 3), (4, 3, 3), (40, 30, 30), (1, 1, 1))
    size, steps = ModelSize(body=1000, head=100), [[0, 1], [2, 3]]

    def training(name: str, micro_pairs: int, micro_tokens: int) -> int:
        ledger = Ledger(some, size, False, micro_pairs, 2, 1, 0, None, micro_tokens)
        return ledger.bill(payer(load_method(name).narrowed(), 0), steps).training

    forward = [2 * (1000 * (14 + 14) + 100 * 12), 2 * (1000 * (140 + 4) + 100 * 62)]
    assert training("alphadpo", 2, 103) == 3 * sum(forward)
    assert training("alphadpo", 2, 102) == 3 * sum(forward) + forward[1]
    assert training("alphadpo", 2, 19) == training("alphadpo", 1, 103) == 4 * sum(forward)
    assert training("dpo", 1, 1) == 3 * sum(forward)
    steps = [[2]]
    assert training("alphadpo", 1, 1) == 3 * 2 * (1000 * 140 + 100 * 60)


def test_what_is_paid_once_is_paid_once_where_some_steps_are_split() -> None:
    some = of_lengths((4, 3, 3), (5, 3, 3), (40, 30, 30), (1, 1, 1))
    size, steps = ModelSize(body=1000, head=100), [[0, 1], [2, 3]]
    bills = [
        Ledger(some, size, False, 2, 2, 1, 0, None, most).bill(
            payer(load_method("kto").narrowed(), 0), steps
        )
        for most in (10_000, 102)
    ]
    assert bills[0].reference == bills[1].reference > 0
    assert bills[0].mismatched == bills[1].mismatched > 0
    assert bills[0].extra == bills[1].extra > 0
    assert bills[0].tokens == bills[1].tokens


def test_joined_log_probs_are_those_of_one_batch() -> None:
    model, pairs = tiny(), some_pairs(5, answer=14)
    with torch.no_grad():
        whole = pair_logprobs(padded, model, pairs)
        parts = join([{"it": pair_logprobs(padded, model, [pair])} for pair in pairs])["it"]
    for one, other in ((whole.chosen, parts.chosen), (whole.rejected, parts.rejected)):
        assert torch.equal(one.mask, other.mask)
        torch.testing.assert_close(one.values, other.values, atol=1e-5, rtol=0)


def deaf(policy: PairLogProbs, *, beta: float = 1.0) -> Tensor:
    """A loss that forgets its policy."""
    return beta * (policy.chosen.length - policy.rejected.length)


def detached(policy: PairLogProbs) -> Tensor:
    """A loss that cuts its own graph."""
    return -policy.chosen.mean().detach()


@pytest.mark.parametrize("loss", [deaf, detached])
@pytest.mark.parametrize("micro", [2, 8])
@pytest.mark.parametrize("coupled", [False, True])
def test_a_loss_that_does_not_depend_on_the_policy_is_refused(
    loss: Any, micro: int, coupled: bool
) -> None:
    which = method(source="for this test", coupled=coupled)(loss)
    learner = Learner(padded, tiny(), which, {}, micro)
    with pytest.raises(GateError, match="does not depend on the policy"):
        learner.accumulate_gradient(some_pairs(4), lambda _: {}, None)


def mean_of_all(policy: PairLogProbs) -> Tensor:
    """One number for the whole step."""
    return -policy.chosen.mean().mean()


def per_token(policy: PairLogProbs) -> Tensor:
    """One number per token."""
    return -policy.chosen.values.masked_fill(~policy.chosen.mask, 0.0)


def column(policy: PairLogProbs) -> Tensor:
    """One number per pair in a dimension too many."""
    return -policy.chosen.mean()[:, None]


@pytest.mark.parametrize("loss", [mean_of_all, per_token, column])
def test_losses_that_are_not_one_per_pair_are_refused(loss: Any) -> None:
    learner = Learner(padded, tiny(), method(source="for this test")(loss), {}, 4)
    with pytest.raises(GateError, match="must return one loss per pair"):
        learner.accumulate_gradient(some_pairs(4), lambda _: {}, None)


def test_the_state_of_a_step_hangs_on_no_graph(
    pairs: list[TokenPair], inputs: Mapping[str, Path]
) -> None:
    run = make_run(remembers, tiny(), pairs, inputs, micro=2)
    before = run.start()
    assert before is not None
    _, after = run.objective()(0, [0, 1, 2], before)
    assert after is not None
    assert not after["total"].requires_grad
    assert float(before["total"]) == 0.0  # what came in is not touched
    run.objective()(1, [3, 4], after)


def test_random_numbers_are_a_function_of_seed_and_step_alone(
    pairs: list[TokenPair], inputs: Mapping[str, Path]
) -> None:
    def draws(seed: int, step: int) -> list[float]:
        run = make_run(flipped, tiny(), pairs, inputs, seed=seed)
        torch.manual_seed(len(str(seed)))  # whatever the world's own generator says
        rng = run.ingredients.rows([0, 1], step)["rng"]
        return torch.rand(3, generator=rng).tolist()

    assert draws(0, 0) == draws(0, 0)
    assert len({tuple(draws(seed, step)) for seed in range(3) for step in range(3)}) == 9


def test_a_loss_is_given_its_own_rows_and_what_it_names(
    pairs: list[TokenPair], inputs: Mapping[str, Path]
) -> None:
    run = make_run(load_method("madpo"), tiny(), pairs, inputs)
    rows = [5, 2, 9]
    given = run.ingredients.rows(rows, 0)
    assert set(given) == {"reference", "margin"}
    every = run.ingredients.rows(range(PAIRS), 0)
    assert given["margin"].tolist() == [float(every["margin"][row]) for row in rows]
    assert given["reference"].chosen.total().tolist() == pytest.approx(
        [float(every["reference"].chosen.total()[row]) for row in rows]
    )
    rewarded = make_run(rewarding, tiny(), pairs, inputs).ingredients.rows(rows, 0)
    assert set(rewarded) == {"rewards"}
    assert torch.equal(rewarded["rewards"][0] - rewarded["rewards"][1], given["margin"])
    lengths = [float(len(pairs[row].rejected)) for row in rows]
    assert given["reference"].rejected.length.tolist() == lengths
