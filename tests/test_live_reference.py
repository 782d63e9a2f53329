"""A reference that follows the policy: its weights, its checkpoints, and what it costs."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.contracts.task import SmallModel
from harness.data.token_store import load_pairs
from harness.data.tokens import TokenPair
from harness.engine.engines import largest_difference, oracle, padded, pair_logprobs
from harness.errors import RequestError
from harness.registry import load_method
from harness.train.cell import train_cell
from harness.train.device import precision
from harness.train.live_reference import (
    Follower,
    LiveReference,
    check_followable,
    frozen,
    weights,
)
from harness.train.loop import Optimisation, fit, order
from harness.train.policy import adapt, build_small, load_policy, save_policy
from harness.train.reference import score_reference
from harness.train.run import Run
from harness.train.step import Learner

from .models import (
    CPU,
    SHAPE,
    WORDS,
    World,
    make_run,
    make_world,
    some_pairs,
    tiny,
    trained_policy,
    write_caches,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
LORA = {"rank": 4, "alpha": 8.0, "targets": "all-linear"}
SOME = {"rank": 4, "alpha": 8.0, "targets": ["q_proj", "down_proj"]}


def moved(lora: Any) -> Any:
    """A policy whose weights, adapters included, differ from those of `tiny()`."""
    model = adapt(tiny(), lora, seed=0)
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return model


def plain(model: Any) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("lora", [None, LORA, SOME], ids=["full", "lora", "some"])
def test_the_weights_of_a_policy_are_those_of_the_merged_model(lora: Any) -> None:
    policy = moved(lora)
    found = {name: value.clone() for name, value in weights(policy)}
    merged = policy.merge_and_unload() if lora else policy
    expected = plain(merged)
    assert found.keys() == expected.keys() == plain(tiny()).keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)


PEFT_TELLS = pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`:UserWarning")


@PEFT_TELLS
@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_on_tied_embeddings_cannot_be_followed(target: str) -> None:
    """Merged they would be two tensors, of which the reference has one."""
    some = {**SOME, "targets": ["q_proj", target]}
    with pytest.raises(RequestError, match="embeddings are one tensor"):
        check_followable(adapt(tiny("llama, tied"), some, seed=0))
    for followed in (tiny("llama, tied"), adapt(tiny("llama, tied"), LORA, seed=0)):
        check_followable(followed)
    policy, reference = adapt(tiny("llama"), some, seed=0), frozen(tiny("llama"))
    check_followable(policy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1)
    Follower(policy, reference, mix=1.0, every=1).after(0)
    with torch.no_grad():
        found, wanted = (pair_logprobs(oracle, m, some_pairs(3)) for m in (reference, policy))
    assert largest_difference(found, wanted) < 1e-4


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_move_is_a_mix_of_both(lora: Any) -> None:
    policy, reference = moved(lora), frozen(tiny())
    before, target = plain(reference), {n: v.clone() for n, v in weights(policy)}
    follower = Follower(policy, reference, mix=0.3, every=2)
    follower.after(0)
    assert all(torch.equal(value, before[name]) for name, value in plain(reference).items())
    follower.after(1)
    for name, value in plain(reference).items():
        torch.testing.assert_close(value, 0.3 * target[name] + 0.7 * before[name])
    once = plain(reference)
    follower.after(2)
    assert all(torch.equal(value, once[name]) for name, value in plain(reference).items())
    follower.after(3)
    for name, value in plain(reference).items():
        torch.testing.assert_close(value, 0.3 * target[name] + 0.7 * once[name])


def test_a_whole_move_makes_the_reference_the_policy() -> None:
    policy, reference = moved(None), frozen(tiny())
    Follower(policy, reference, mix=1.0, every=1).after(0)
    torch.testing.assert_close(plain(reference), plain(policy))


def test_the_reference_follows_the_policy_as_it_is_after_the_step(tmp_path: Path) -> None:
    """With a whole move each step both end as one: a move before the update would lag behind."""
    pairs, model, reference = some_pairs(16), tiny(), frozen(tiny())
    run = make_run(
        load_method("tr_dpo"), model, pairs, write_caches(tmp_path / "caches", pairs, tiny()),
        reference=reference, settings={"alpha": 1.0, "tau": 1},
    )  # fmt: skip
    fit(
        model, order(16, 1, 8, seed=0), run.objective(), Optimisation(1e-2), scratch=tmp_path,
        checkpoint_steps=9, report=lambda *_: None, companion=Follower(model, reference, 1.0, 1),
    )  # fmt: skip
    start = plain(tiny())
    assert all(torch.equal(value, plain(reference)[n]) for n, value in plain(model).items())
    assert any(not torch.equal(value, start[n]) for n, value in plain(model).items())


@pytest.fixture
def pairs() -> list[TokenPair]:
    return some_pairs(16)


def test_the_log_probs_are_those_of_the_reference_as_it_stands(
    pairs: list[TokenPair], tmp_path: Path
) -> None:
    reference = tiny()
    run = make_run(
        load_method("tr_dpo"), moved(None), pairs, write_caches(tmp_path, pairs, tiny(seed=5)),
        micro=3, reference=reference,
    )  # fmt: skip
    rows = [7, 0, 3, 3]
    for _ in range(2):
        found = run.given(rows, step=0)["reference"]
        expected = pair_logprobs(oracle, reference, [pairs[row] for row in rows])
        torch.testing.assert_close(found.chosen.total(), expected.chosen.total(), atol=1e-4, rtol=0)
        assert torch.equal(found.rejected.mask, expected.rejected.mask)
        assert not found.chosen.values.requires_grad
        with torch.no_grad():
            reference.lm_head.weight.mul_(1.5)


def trained(pairs: list[TokenPair], folder: Path, steps: int | None, model: Any, ref: Any) -> Any:
    """Three steps of TR-DPO whose reference moves every two; `steps` ends it early, as a kill."""
    run = make_run(
        load_method("tr_dpo"), model, pairs, write_caches(folder / "caches", pairs, tiny()),
        micro=4, reference=ref, settings={"alpha": 0.5, "tau": 2},
    )  # fmt: skip
    follower = Follower(model, ref, 0.5, 2)
    done = 0

    def report(at: int, of: int, unit: str) -> None:
        nonlocal done
        done = at
        if steps is not None and at > steps:
            raise KeyboardInterrupt

    fit(
        model, order(16, 2, 8, seed=0), run.objective(), Optimisation(1e-2), scratch=folder / "s",
        checkpoint_steps=1, report=report, state=None, companion=follower,
    )  # fmt: skip
    assert done == 4
    return plain(model), plain(ref)


@pytest.mark.parametrize("killed", [1, 2, 3])
def test_a_killed_run_goes_on_with_the_moved_reference(
    killed: int, pairs: list[TokenPair], tmp_path: Path
) -> None:
    whole = trained(pairs, tmp_path / "whole", None, tiny(), frozen(tiny()))
    with pytest.raises(KeyboardInterrupt):
        trained(pairs, tmp_path / "killed", killed, tiny(), frozen(tiny()))
    # Fresh models, as a new process would load them.
    again = trained(pairs, tmp_path / "killed", None, tiny(), frozen(tiny()))
    for one, other in zip(whole, again, strict=True):
        assert all(torch.equal(one[name], other[name]) for name in one)
    start = plain(tiny())
    assert any(not torch.equal(whole[1][name], start[name]) for name in start)


def test_a_reference_that_moves_changes_what_is_learnt(
    pairs: list[TokenPair], tmp_path: Path
) -> None:
    moving, _ = trained(pairs, tmp_path / "moving", None, tiny(), frozen(tiny()))
    model = tiny()
    run = make_run(
        load_method("dpo"), model, pairs, write_caches(tmp_path / "caches", pairs, tiny()), micro=4
    )
    fit(
        model, order(16, 2, 8, seed=0), run.objective(), Optimisation(1e-2),
        scratch=tmp_path / "still", checkpoint_steps=9, report=lambda *_: None,
    )  # fmt: skip
    assert any(not torch.equal(moving[name], value) for name, value in plain(model).items())


CELL = {
    "engine": "padded", "seed": 0, "epochs": 1, "pairs_per_step": 8, "micro_pairs": 4,
    "checkpoint_steps": 100, "precision": "fp32", "reward_epochs": 0, "method": "tr_dpo",
    "optimisation": {"learning_rate": 1e-3},
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = make_world(tmp_path_factory.mktemp("world"), pairs=32, held_out=8)
    numbers = {"precision": "fp32", "engine": "padded", "entropy": False}
    score_reference(made.work("reference", numbers))
    return made


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_cell_says_how_often_its_reference_moved(lora: Any, world: World) -> None:
    without = copy.copy(world)
    facts, trained_at = {}, {}
    for tau in (2, 100):
        work = without.work(
            f"{tau}-{lora is None}",
            {**CELL, "lora": lora, "method_settings": {"beta": 0.1, "alpha": 0.6, "tau": tau}},
        )
        # Its reference is no cache: the stage is not asked for one.
        inputs = {k: v for k, v in work.inputs.items() if k != "reference"}
        facts[tau] = train_cell(replace(work, inputs=inputs))
        trained_at[tau] = plain(trained_policy(world.inputs["policy"], work.out))
    assert {tau: found["reference_moves"] for tau, found in facts.items()} == {2: 2, 100: 0}
    assert facts[2]["bill"]["extra"] * 3 == facts[2]["bill"]["training"] * (
        1 if lora is None else 1.5
    )
    assert facts[2]["bill"]["reference"] == 0
    assert any(not torch.equal(trained_at[2][n], v) for n, v in trained_at[100].items())


@PEFT_TELLS
def test_a_cell_whose_reference_could_not_follow_is_refused(world: World, tmp_path: Path) -> None:
    tied, tokenizer = build_small(SmallModel(WORDS, {**SHAPE, "tie_word_embeddings": True}), 0)
    save_policy(tied, tokenizer, tmp_path)
    lora = {**SOME, "targets": ["lm_head"]}
    settings = {"beta": 0.1, "alpha": 0.3, "tau": 1}
    work = world.work("torn", {**CELL, "lora": lora, "method_settings": settings}, policy=tmp_path)
    with pytest.raises(RequestError, match="Leave the embeddings and the output head out"):
        train_cell(work)
    assert not list(work.out.iterdir())


def test_a_reference_that_never_moves_trains_as_dpo(world: World) -> None:
    found = {}
    for name, settings in (("tr_dpo", {"tau": 100}), ("dpo", {})):
        method = load_method(name)
        work = world.work(
            f"still-{name}",
            {**CELL, "method": name, "lora": None, "method_settings": method.resolve(settings)},
        )
        train_cell(work)
        found[name] = plain(trained_policy(world.inputs["policy"], work.out))
    for name, value in found["dpo"].items():
        torch.testing.assert_close(found["tr_dpo"][name], value, atol=1e-5, rtol=0)


def test_a_cell_mixes_by_alpha(world: World) -> None:
    """The cell's weights are those of the loop with a follower made by hand."""
    settings = {"beta": 0.1, "alpha": 0.3, "tau": 1}
    work = world.work("mixed", {**CELL, "lora": None, "method_settings": settings})
    train_cell(work)
    model, _ = load_policy(world.inputs["policy"])
    reference = frozen(load_policy(world.inputs["policy"])[0])
    method = load_method("tr_dpo").narrowed(settings)
    learner = Learner(padded, model.eval(), method, method.resolve(settings), 4, reference)
    run = Run.of(learner, world.inputs, "train", where=CPU, seed=0)
    fit(
        model, order(32, 1, 8, seed=0), run.objective(), Optimisation(1e-3),
        scratch=world.folder / "by hand", checkpoint_steps=9, report=lambda *_: None,
        companion=Follower(model, reference, 0.3, 1),
    )  # fmt: skip
    cell = plain(trained_policy(world.inputs["policy"], work.out))
    assert all(torch.equal(cell[name], value) for name, value in plain(model).items())


def test_the_held_out_pairs_are_seen_by_the_same_reference(world: World) -> None:
    reference = frozen(load_policy(world.inputs["policy"])[0])
    method = load_method("tr_dpo").narrowed()
    learner = Learner(padded, moved(None), method, method.resolve(), 4, reference)
    run = Run.of(learner, world.inputs, "train", where=CPU, seed=0)
    held_out = run.on(world.inputs, "validation")
    pairs = load_pairs(world.inputs["tokens"], "validation")
    assert held_out.pairs == pairs != run.pairs
    found = held_out.given([0, 5], step=0)["reference"]
    expected = pair_logprobs(oracle, reference, [pairs[0], pairs[5]])
    torch.testing.assert_close(found.chosen.total(), expected.chosen.total(), atol=1e-4, rtol=0)


def test_a_live_reference_computes_in_the_precision_of_the_run() -> None:
    pairs, model = some_pairs(4), tiny(initializer_range=0.05)
    live = LiveReference(padded, frozen(model), pairs, 4)
    with precision(CPU, "bf16"), torch.no_grad():
        narrow = live.rows(range(4), CPU).chosen.total()
        policy = pair_logprobs(padded, model, pairs).chosen.total()
    assert torch.equal(narrow, policy), "policy and reference must agree at the first step"
    assert not torch.equal(narrow, live.rows(range(4), CPU).chosen.total())
