"""What engines give beside log-probs: confidence, entropy, divergence, answers to other prompts."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.contracts.method import method
from harness.data.ragged import load_ragged
from harness.data.token_store import load_pairs
from harness.data.tokens import TokenPair
from harness.engine import head
from harness.engine.engines import (
    ENGINES,
    Also,
    Batched,
    Columns,
    oracle,
    padded,
    pair_columns,
    shared,
)
from harness.errors import DataError
from harness.registry import load_method
from harness.train.cell import train_cell
from harness.train.device import precision
from harness.train.mismatched import Mismatched, mismatch, score_mismatched
from harness.train.policy import adapt
from harness.train.reference import ReferenceCache, score_reference
from harness.train.run import Ingredients

from .models import (
    ARCHITECTURES,
    CPU,
    World,
    bigrams,
    make_run,
    make_world,
    some_pairs,
    tiny,
    write_caches,
)

ALL = ("confidence", "entropy", "divergence")
# A chain of three tokens whose rows are easy to sum by hand.
HALVES = torch.tensor([[0.5, 0.25, 0.25], [1 / 3, 1 / 3, 1 / 3], [0.125, 0.75, 0.125]])
OTHER = torch.tensor([[0.25, 0.5, 0.25], [0.5, 0.25, 0.25], [0.25, 0.5, 0.25]])


def also(reference: Any) -> Also:
    return Also(ALL, reference)


@pytest.mark.parametrize("engine", ENGINES)
def test_every_number_by_hand(engine: str) -> None:
    model, reference = bigrams(HALVES.log()), bigrams(OTHER.log())
    with torch.no_grad():
        found = ENGINES[engine](model, [((0,), (2, 1, 0))], also(reference))
    # The distributions that the three answer tokens are drawn from: rows 0, 2 and 1.
    p, q = HALVES[[0, 2, 1]].double(), OTHER[[0, 2, 1]].double()
    expected = {
        "logprobs": torch.stack([p[0, 2], p[1, 1], p[2, 0]]).log(),
        "confidence": (p**2).sum(1).log(),
        "entropy": -(p * p.log()).sum(1) / math.log(3),
        "divergence": (q * (q.log() - p.log())).sum(1),
    }
    assert list(found) == ["logprobs", *ALL]
    for name, numbers in expected.items():
        torch.testing.assert_close(found[name].values[0].double(), numbers, atol=1e-5, rtol=0)
    assert found["entropy"].values[0, 2] == pytest.approx(1.0, abs=1e-6), "uniform"


def largest(one: Columns, other: Columns) -> float:
    assert list(one) == list(other)
    for name in one:
        assert torch.equal(one[name].mask, other[name].mask)
    pairs = [(one[name].values - other[name].values, one[name].mask) for name in one]
    return max(float(gap.masked_fill(~mask, 0.0).abs().max()) for gap, mask in pairs)


# Those that say otherwise in `harness/engine/choice.py` are never given to `shared`.
ALONE = {"bloom, no positions", "gptj, head with a bias"}
AGREE = [
    *((padded, architecture) for architecture in ARCHITECTURES),
    *((shared, architecture) for architecture in ARCHITECTURES if architecture not in ALONE),
]


@pytest.mark.parametrize(("engine", "architecture"), AGREE)
def test_the_engines_agree_on_every_architecture(engine: Batched, architecture: str) -> None:
    # Of windows, `shared` knows only such as hold every sequence.
    wide = {"sliding_window": 64} if engine is shared and "window" in architecture else {}
    wide |= {"sliding_window": 64} if engine is shared and "gemma" in architecture else {}
    model, reference = tiny(architecture, **wide), tiny(architecture, seed=1, **wide)
    sequences = [(pair.prompt, pair.chosen) for pair in some_pairs(5)]
    with torch.no_grad():
        plain = oracle(model, sequences, also(reference))
        fast = engine(model, sequences, also(reference))
    assert largest(plain, fast) < 1e-5
    assert float(plain["divergence"].total().min()) > 0.01


def gradients(engine: Any, model: Any, reference: Any) -> dict[str, Tensor]:
    model.zero_grad()
    found = pair_columns(engine, model, some_pairs(4), also(reference))
    weight = torch.tensor([0.5, -1.0, 2.0, 1.5])
    loss = (
        weight * (found["divergence"].chosen.total() - found["logprobs"].rejected.total())
    ).sum()
    torch.autograd.backward(loss)
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("tile", [head.TILE_LOGITS, 3 * 61])
@pytest.mark.parametrize("engine", [padded, shared])
def test_the_gradient_of_a_divergence_is_the_same_in_every_engine_and_tile(
    engine: Batched, tile: int
) -> None:
    model, reference = tiny("llama"), tiny("llama", seed=1)
    plain = gradients(oracle, model, reference)
    fast = gradients(replace(engine, tile=tile), model, reference)
    assert plain.keys() == fast.keys()
    for name, gradient in plain.items():
        torch.testing.assert_close(fast[name], gradient, atol=2e-5, rtol=1e-4)
    assert all(parameter.grad is None for parameter in reference.parameters())


@pytest.mark.parametrize("engine", ENGINES)
def test_confidence_and_entropy_carry_no_gradient_and_divergence_does(engine: str) -> None:
    model = tiny()
    found = pair_columns(ENGINES[engine], model, some_pairs(3), also(tiny(seed=1)))
    assert {name for name in found if found[name].chosen.values.requires_grad} == {
        "logprobs",
        "divergence",
    }
    (slope,) = torch.autograd.grad(found["divergence"].chosen.total().sum(), model.lm_head.weight)
    assert slope.abs().max() > 0


@pytest.mark.parametrize("engine", [padded, shared])
def test_tiles_hold_no_logits_of_the_whole_batch(
    engine: Batched, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    plain = head._numbers

    def watched(logits: Tensor, *more: Any) -> Tensor:
        seen.append(len(logits))
        return plain(logits, *more)

    monkeypatch.setattr(head, "_numbers", watched)
    pairs = some_pairs(6)
    with torch.no_grad():
        pair_columns(replace(engine, tile=5 * 61), tiny(), pairs, also(tiny(seed=1)))
    assert max(seen) == 5
    assert sum(seen) == sum(len(pair.chosen) + len(pair.rejected) for pair in pairs)


def test_an_engine_computes_nothing_that_is_not_named() -> None:
    with torch.no_grad():
        for engine in ENGINES.values():
            assert list(engine(tiny(), [((3,), (4, 5))], Also())) == ["logprobs"]


@pytest.mark.parametrize("engine", [padded, shared])
def test_numbers_over_the_vocabulary_are_in_fp32_under_autocast(engine: Batched) -> None:
    model, reference, pairs = tiny(initializer_range=0.05), tiny(seed=1), some_pairs(4)
    with torch.no_grad(), precision(CPU, "bf16"):
        narrow = pair_columns(engine, model, pairs, also(reference))
    wide = pair_columns(oracle, model, pairs, also(reference))
    for name in ("logprobs", *ALL):
        assert narrow[name].chosen.values.dtype == torch.float32
        gap = (narrow[name].chosen.total() - wide[name].chosen.total()).abs().max()
        assert gap < 0.2, name


# Answers to other prompts


def test_every_prompt_meets_the_answers_of_another_prompt() -> None:
    pairs = some_pairs(7)
    others = mismatch(pairs)
    assert [o.prompt for o in others] == [p.prompt for p in pairs]
    assert [o.chosen for o in others] == [p.chosen for p in [pairs[-1], *pairs[:-1]]]
    assert [o.rejected for o in others] == [p.rejected for p in [pairs[-1], *pairs[:-1]]]


def test_pairs_of_one_prompt_are_passed_over() -> None:
    pairs = [TokenPair(str(i), prompt, (i,), (i + 9,)) for i, prompt in enumerate(
        [(1,), (1,), (2,), (1,), (2,), (2,)]
    )]  # fmt: skip
    assert [other.chosen for other in mismatch(pairs)] == [(5,), (5,), (1,), (2,), (3,), (3,)]


def test_one_prompt_alone_has_no_other() -> None:
    pairs = [TokenPair(str(i), (7,), (i,), (i + 9,)) for i in range(4)]
    with pytest.raises(DataError, match="all pairs have one prompt"):
        mismatch(pairs)
    with pytest.raises(DataError):
        mismatch(pairs[:1])


def test_mismatched_log_ratios_are_those_of_the_oracle(tmp_path: Path) -> None:
    pairs, model, reference = some_pairs(9), tiny(), tiny(seed=1)
    inputs = write_caches(tmp_path, pairs, reference)
    cache = Mismatched(mismatch(pairs), ReferenceCache(inputs["mismatched"], "train"))
    rows = [4, 0, 8]
    chosen, rejected = cache.log_ratios(padded, model, rows, micro_pairs=2)
    assert not chosen.requires_grad
    for side, found in (("chosen", chosen), ("rejected", rejected)):
        for row, value in zip(rows, found, strict=True):
            answers = [(pairs[row].prompt, getattr(pairs[row - 1], side))]
            mine, theirs = (oracle(m, answers)["logprobs"].total() for m in (model, reference))
            assert float(value) == pytest.approx((mine - theirs).item(), abs=1e-4)


def test_a_method_that_reads_mismatched_gets_it_of_its_own_step(tmp_path: Path) -> None:
    pairs, reference = some_pairs(9), tiny(seed=1)
    run = make_run(load_method("kto"), tiny(), pairs, write_caches(tmp_path, pairs, reference))
    whole = run.given([4, 0, 8], step=0)["mismatched"]
    for i, row in enumerate([4, 0, 8]):
        alone = run.given([row], step=0)["mismatched"]
        for side in (0, 1):
            torch.testing.assert_close(alone[side][0], whole[side][i], atol=1e-4, rtol=0)
    assert "mismatched" not in make_run(
        load_method("dpo"), tiny(), pairs, write_caches(tmp_path, pairs, reference)
    ).given([0], step=0)


# Through the stages


CELL = {
    "engine": "padded", "seed": 0, "epochs": 1, "pairs_per_step": 8, "micro_pairs": 3,
    "checkpoint_steps": 100, "precision": "fp32", "lora": None, "reward_epochs": 0,
    "optimisation": {"learning_rate": 1e-3},
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = make_world(tmp_path_factory.mktemp("world"), pairs=24, held_out=6)
    numbers = {"precision": "fp32", "engine": "padded"}
    score_reference(made.work("reference", {**numbers, "entropy": True}))
    score_mismatched(made.work("mismatched", numbers))
    return made


def test_the_reference_pass_writes_entropies_of_the_same_tokens(world: World) -> None:
    columns = load_ragged(world.inputs["reference"] / "train.safetensors")
    assert set(columns) == {"chosen", "rejected", "chosen.entropy", "rejected.entropy"}
    pairs = load_pairs(world.inputs["tokens"], "train")
    for pair, logprobs, shares in zip(
        pairs, columns["chosen"], columns["chosen.entropy"], strict=True
    ):
        assert len(pair.chosen) == len(logprobs) == len(shares)
        assert ((shares > 0) & (shares <= 1 + 1e-6)).all()


def test_a_method_that_reads_entropy_gets_that_of_its_pairs(tmp_path: Path) -> None:
    pairs, reference = some_pairs(6), tiny(seed=1)
    inputs = write_caches(tmp_path, pairs, reference)
    run = make_run(load_method("mallowspo"), tiny(), pairs, inputs)
    found = run.given([4, 0], step=0)["entropy"]
    plain = pair_columns(oracle, reference, [pairs[4], pairs[0]], Also(("entropy",)))["entropy"]
    for mine, theirs in ((found.chosen, plain.chosen), (found.rejected, plain.rejected)):
        assert torch.equal(mine.mask, theirs.mask)
        torch.testing.assert_close(mine.total(), theirs.total(), atol=1e-5, rtol=0)


def test_a_cell_needs_no_reference_where_its_form_reads_none(world: World) -> None:
    settings = {**CELL, "method": "adadpo", "method_settings": {"form": "simpo", "beta": 2.0}}
    work = world.work("adadpo-simpo", settings)
    without = {name: folder for name, folder in work.inputs.items() if name != "reference"}
    assert train_cell(replace(work, inputs=without))["bill"]["reference"] == 0


def test_the_mismatched_pass_scores_other_answers(world: World) -> None:
    columns = load_ragged(world.inputs["mismatched"] / "train.safetensors")
    others = mismatch(load_pairs(world.inputs["tokens"], "train"))
    assert [len(row) for row in columns["rejected"]] == [len(o.rejected) for o in others]


READERS = ("kto", "tdpo", "wpo", "mallowspo")


@pytest.mark.parametrize("lora", [None, {"rank": 2, "alpha": 4.0, "targets": "all-linear"}])
@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_cell_trains_on_what_it_reads_and_pays_for_it(name: str, lora: Any, world: World) -> None:
    settings = {**CELL, "method": name, "method_settings": {}, "lora": lora}
    facts = train_cell(world.work(f"{name}-{lora is None}", settings))
    assert facts["steps"] == 3
    assert facts["gate"]["noise_floor"] < 1e-4
    assert facts["validation"]["not_finite"] == 0
    bill = facts["bill"]
    assert bool(bill["extra"]) == (name != "mallowspo")
    assert bool(bill["mismatched"]) == (name == "kto")
    assert bill["total"] == sum(
        bill[part] for part in ("training", "reference", "reward", "mismatched", "extra")
    )


@pytest.mark.parametrize("name", ["divergence", "confidence"])
def test_a_step_passes_the_right_numbers_to_the_loss(name: str, tmp_path: Path) -> None:
    pairs, reference = some_pairs(6), tiny(seed=1)
    got: list[Any] = []

    if name == "divergence":

        @method(source="for this test")
        def reads(policy: Any, divergence: Any) -> Tensor:
            got.append(divergence)
            return -policy.chosen.mean() + divergence.chosen.total()
    else:

        @method(source="for this test")
        def reads(policy: Any, confidence: Any) -> Tensor:
            got.append(confidence)
            return -policy.chosen.mean() * confidence.chosen.mean().exp()

    model = adapt(tiny(), None, seed=0)
    inputs = write_caches(tmp_path, pairs, reference)
    run = make_run(reads, model, pairs, inputs, micro=2, reference=reference)
    run.objective()(0, [5, 1, 0], None)
    plain = pair_columns(oracle, model, [pairs[row] for row in (5, 1, 0)], Also((name,), reference))
    totals = torch.cat([part.chosen.total() for part in got])
    torch.testing.assert_close(
        totals.detach(), plain[name].chosen.total().detach(), atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("split", ["train", "validation"])
def test_entropies_are_those_of_the_split(split: Any, world: World) -> None:
    method = load_method("mallowspo").narrowed()
    found = Ingredients.load(method, world.inputs, split, where=CPU, seed=0).rows([1, 4], 0)
    columns = load_ragged(world.inputs["reference"] / f"{split}.safetensors")
    for i, row in enumerate([1, 4]):
        expected = float(columns["chosen.entropy"][row].sum())
        assert found["entropy"].chosen.total()[i].item() == pytest.approx(expected, rel=1e-5)


def test_a_reference_pass_in_bf16_is_one(world: World) -> None:
    numbers = {"precision": "bf16", "engine": "padded", "entropy": True}
    work = world.work("narrow", numbers)
    score_reference(work)
    narrow = load_ragged(work.out / "train.safetensors")["chosen"]
    wide = load_ragged(world.inputs["reference"] / "train.safetensors")["chosen"]
    gaps = [float(abs(a - b).max()) for a, b in zip(narrow, wide, strict=True)]
    assert 1e-5 < max(gaps) < 0.3
