"""The gate: a run whose first step is not what it must be never begins."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import PreTrainedModel

from harness.contracts.logprobs import LogProbs, PairLogProbs
from harness.contracts.method import Method, State, method
from harness.data.ragged import load_ragged, save_ragged
from harness.data.token_store import load_pairs, save_pairs
from harness.data.tokens import TokenPair
from harness.engine.engines import NOTHING, Also, Columns, Sequences, padded
from harness.errors import GateError
from harness.registry import found, load_method
from harness.train.cell import digest, train_cell
from harness.train.device import precision
from harness.train.gate import LIMITS, SAMPLE_PAIRS, check_cache, open_gate
from harness.train.loop import order
from harness.train.mismatched import score_mismatched
from harness.train.policy import adapt, without_dropout
from harness.train.reference import score_reference
from harness.train.run import Ingredients, Run, validate

from .command import PLANTED
from .models import CPU, World, make_run, make_world, some_pairs, tiny, write_caches

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

PAIRS = 12
FIRST = list(range(8))
METHODS = [name for name, plugin in found("methods").items() if plugin.origin == "built in"]
Inputs = Mapping[str, Path]
Make = Callable[..., Run]


@pytest.fixture(scope="module")
def pairs() -> list[TokenPair]:
    return some_pairs(PAIRS, seed=3)


@pytest.fixture
def make(pairs: list[TokenPair], tmp_path: Path) -> Make:
    """A run whose cache was made by a model of the given seed; the policy's is 0."""

    def make(which: Method | str, reference: int = 0, **more: Any) -> Run:
        model = tiny(seed=reference)
        inputs = write_caches(tmp_path / str(reference), pairs, model)
        named = load_method(which) if isinstance(which, str) else which
        policy = more.pop("model", None) or tiny()
        return make_run(named, policy, pairs, inputs, reference=model, **more)

    return make


def gate(run: Run, limits: Mapping[str, float] = LIMITS["fp32"]) -> dict[str, Any]:
    return open_gate(run, FIRST, seed=0, limits=limits)


@pytest.mark.parametrize("engine", ["fp32", "bf16"])
def test_the_first_loss_of_dpo_is_log_2(engine: str, make: Make) -> None:
    run = make("dpo")
    with precision(CPU, engine):
        if engine == "bf16":  # a cache of the same precision
            run = _with_cache(run, run.learner.see(run.pairs)["policy"])
        found = gate(run, LIMITS[engine])
    tolerance = {"fp32": 1e-5, "bf16": 1e-2}[engine]
    assert found["first_loss"] == pytest.approx(math.log(2), abs=tolerance)
    assert found["expected_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert 0 <= found["reference"] < (1e-5 if engine == "fp32" else 0.1)
    assert (found["noise_floor"] > 1e-4) == (engine == "bf16")


class _Cache:
    def __init__(self, logprobs: PairLogProbs) -> None:
        self.logprobs = logprobs.detach()

    def __len__(self) -> int:
        return len(self.logprobs.chosen.mask)

    def rows(self, rows: Any, where: Any) -> PairLogProbs:
        both = (self.logprobs.chosen, self.logprobs.rejected)
        return PairLogProbs(*(LogProbs(*_cut(s.values[rows], s.mask[rows])) for s in both))


def _cut(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    width = int(mask.sum(-1).max())
    return values[:, :width], mask[:, :width]


def _with_cache(run: Run, logprobs: PairLogProbs) -> Run:
    cache: Any = _Cache(logprobs)
    return replace(run, ingredients=replace(run.ingredients, reference=cache))


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", METHODS)
def test_every_method_comes_through_an_honest_gate(name: str, lora: bool, make: Make) -> None:
    adapters = {"rank": 4, "alpha": 8.0, "targets": "all-linear"}
    model = without_dropout(adapt(tiny(), adapters if lora else None, seed=1))
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    run = make(name, model=model)
    seen = gate(run)
    assert ("reference" in seen) == ("reference" in run.method.reads)
    assert all(value is not None for value in seen.values())
    for parameter_name, parameter in model.named_parameters():
        assert torch.equal(parameter.detach(), before[parameter_name])
        assert parameter.grad is None


@pytest.mark.parametrize("name", ["dpo", "madpo", "alphadpo"])
def test_a_cache_of_another_model_is_refused(name: str, make: Make) -> None:
    with pytest.raises(GateError, match=r"off by .* nats per token .* another model"):
        gate(make(name, reference=1))


@pytest.mark.parametrize("name", ["dpo", "madpo", "alphadpo"])
def test_a_policy_that_is_not_the_reference_is_refused(name: str, make: Make) -> None:
    model = tiny()
    with torch.no_grad():
        model.model.norm.weight.mul_(1.01)
    with pytest.raises(GateError, match="nats per token"):
        gate(make(name, model=model))


def test_a_cache_of_another_truncation_is_refused(make: Make) -> None:
    run = make("dpo")
    shorter = [replace(pair, rejected=pair.rejected[:3]) for pair in run.pairs]
    with pytest.raises(GateError, match="other lengths"):
        gate(replace(run, pairs=shorter))


def test_a_cache_whose_prompts_were_cut_otherwise_is_refused(make: Make) -> None:
    run = make("dpo")
    cut = [replace(pair, prompt=pair.prompt[-1:]) for pair in run.pairs]
    with pytest.raises(GateError, match="nats per token"):
        gate(replace(run, pairs=cut))


@pytest.mark.parametrize("part", ["prompt", "chosen", "rejected"])
def test_one_changed_id_among_the_sampled_pairs_is_refused(part: str, make: Make) -> None:
    assert PAIRS <= SAMPLE_PAIRS
    run = make("dpo")
    ids = getattr(run.pairs[-1], part)
    changed = replace(run.pairs[-1], **{part: (*ids[:-1], 3 if ids[-1] != 3 else 4)})
    with pytest.raises(GateError, match="nats per token"):
        gate(replace(run, pairs=[*run.pairs[:-1], changed]))


def test_a_cache_in_another_order_is_refused(make: Make) -> None:
    run = make("dpo")
    with pytest.raises(GateError):
        gate(replace(run, pairs=run.pairs[::-1]))


@pytest.mark.parametrize("rows", [3, 11])
def test_a_cache_of_fewer_pairs_is_refused(rows: int, make: Make, tmp_path: Path) -> None:
    run = make("dpo")
    fewer = write_caches(tmp_path / "fewer", run.pairs[:rows], tiny())
    ingredients = Ingredients.load(run.method, fewer, "train", where=CPU, seed=0)
    with pytest.raises(GateError, match=rf"{rows} pairs, not {PAIRS}"):
        gate(replace(run, ingredients=ingredients))


@pytest.mark.parametrize("rows", [11, 13])
def test_margins_of_another_number_of_pairs_are_refused(
    rows: int, make: Make, tmp_path: Path
) -> None:
    run = make("madpo")
    file = tmp_path / "0" / "margins" / "train.safetensors"
    save_file({side: torch.zeros(rows) for side in ("chosen", "rejected")}, file)
    inputs = {name: tmp_path / "0" / name for name in ("tokens", "reference", "margins")}
    ingredients = Ingredients.load(run.method, inputs, "train", where=CPU, seed=0)
    with pytest.raises(GateError, match=rf"{rows} pairs, not {PAIRS}"):
        gate(replace(run, ingredients=ingredients))


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_a_cache_with_a_hole_is_refused(side: str, make: Make, tmp_path: Path) -> None:
    run = make("dpo")
    file = tmp_path / "0" / "reference" / "train.safetensors"
    columns = {name: [row.copy() for row in rows] for name, rows in load_ragged(file).items()}
    columns[side][-1][-1] = math.nan
    save_ragged(file, **columns)
    inputs = {"reference": file.parent}
    ingredients = Ingredients.load(run.method, inputs, "train", where=CPU, seed=0)
    with pytest.raises(GateError, match="nan"):
        gate(replace(run, ingredients=ingredients))


def test_the_largest_difference_of_a_cache_is_found_wherever_it_is() -> None:
    ones = torch.full((2, 3), -1.0)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    fresh = PairLogProbs(LogProbs(ones, mask), LogProbs(ones, mask))
    other = ones.clone()
    other[0, 2], other[1, 2] = -1.25, math.nan  # the second is outside the mask
    cached = PairLogProbs(LogProbs(ones, mask), LogProbs(other, mask))
    assert check_cache(fresh, cached, limit=0.3) == 0.25
    with pytest.raises(GateError, match=r"0\.25 nats per token \(limit 0\.2\)"):
        check_cache(fresh, cached, limit=0.2)


def relative(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, twice: bool = False
) -> Tensor:
    """DPO, or what is not DPO at the reference."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return -logsigmoid(beta * (chosen - rejected))


@pytest.mark.parametrize("declared", [0.5, 0.7, 0.0])
def test_a_loss_that_is_not_what_its_method_declares_is_refused(
    declared: float, make: Make
) -> None:
    which = method(source="for this test", at_reference=declared)(relative)
    with pytest.raises(GateError, match=rf"0\.693147 but must be {declared:g} \(declared"):
        gate(make(which))


def test_a_loss_that_is_not_that_of_the_cached_reference_is_refused(make: Make) -> None:
    # Differences within what a token may be off, that a large beta makes much of.
    run = make(method(source="for this test")(relative), settings={"beta": 100.0})
    moved = run.learner.see(run.pairs)["policy"].detach()
    sides = (moved.chosen, LogProbs(moved.rejected.values + 9e-4, moved.rejected.mask))
    with pytest.raises(GateError, match="from the cached reference"):
        gate(_with_cache(run, PairLogProbs(*sides)))


def test_a_method_without_a_reference_is_still_checked_against_the_oracle(make: Make) -> None:
    assert set(gate(make("simpo"))) == {"noise_floor", "first_loss"}

    def doubled(model: Any, sequences: Sequences, also: Also = NOTHING) -> Columns:
        found = padded(model, sequences, also)["logprobs"]
        return {"logprobs": LogProbs(2 * found.values, found.mask)}

    with pytest.raises(GateError, match="does not honour"):
        gate(make("simpo", engine=doubled))


def test_the_gate_changes_nothing_of_what_comes_after(make: Make) -> None:
    run, other = make("alphadpo", micro=3), make("alphadpo", micro=3)
    gate(run)
    rows = list(range(8))
    results = [each.objective()(0, rows, each.start()) for each in (run, other)]
    assert results[0][0] == results[1][0]
    gradients = [each.learner.model.model.norm.weight.grad for each in (run, other)]
    assert torch.equal(*gradients)


def test_a_loss_that_is_undefined_at_the_reference_is_refused_with_its_file(make: Make) -> None:
    run = make(str(PLANTED / "undefined.py"))
    exact = _with_cache(run, run.learner.see(run.pairs)["policy"])
    with pytest.raises(GateError, match=r"'undefined' \(.*undefined.py\): its first loss is nan"):
        gate(exact)


def test_a_loss_that_is_undefined_at_the_exact_reference_alone_may_begin(make: Make) -> None:
    # Kernels leave rounding between cache and policy; where they do, nothing is 0/0.
    run = make(str(PLANTED / "undefined.py"))
    cached = run.learner.see(run.pairs)["policy"]
    moved = LogProbs(cached.chosen.values - 1e-6, cached.chosen.mask)
    near = _with_cache(run, PairLogProbs(moved, cached.rejected))
    assert gate(near)["expected_loss"] is None


def test_no_more_pairs_are_in_memory_than_a_micro_batch(make: Make) -> None:
    largest = []

    def watched(model: Any, sequences: Sequences, also: Also = NOTHING) -> Columns:
        largest.append(len(sequences))
        return padded(model, sequences, also)

    run = make("dpo", engine=watched, micro=3)
    whole = make("dpo", micro=100)
    found = gate(run)
    validate(run, None)
    largest.remove(8)  # the pairs for the oracle, both sides of each
    assert max(largest) == 6
    assert found["first_loss"] == pytest.approx(gate(whole)["first_loss"], abs=1e-6)


# ---- Held-out pairs


@method(source="for these tests")
def noisy(policy: PairLogProbs, rng: torch.Generator) -> Tensor:
    """A loss with random numbers of its own."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    return -logsigmoid(gap + torch.randn(len(gap), generator=rng))


@pytest.mark.parametrize("name", [*METHODS, "noisy"])
def test_validation_moves_no_state_and_does_not_depend_on_micro_batches(
    name: str, make: Make
) -> None:
    which: Any = noisy if name == "noisy" else name
    first = make(which, reference=1)
    _, state = first.objective()(0, FIRST, first.start())
    results = []
    for micro in (12, 5, 1):
        run = make(which, reference=1, micro=micro)
        before = digest(state)
        weights = run.learner.model.lm_head.weight.detach().clone()
        results.append(validate(run, state))
        assert digest(state) == before
        assert run.learner.model.lm_head.weight.grad is None
        assert torch.equal(run.learner.model.lm_head.weight.detach(), weights)
    assert results[0]["loss"] == pytest.approx(results[1]["loss"], abs=1e-5, rel=1e-5)
    assert results[0]["loss"] == pytest.approx(results[2]["loss"], abs=1e-5, rel=1e-5)
    assert results[0]["pairs"] == PAIRS
    assert results[0]["not_finite"] == 0
    assert results[0]["chosen_likelier"] == results[2]["chosen_likelier"]


def test_validation_reads_the_state_that_it_does_not_move(make: Make) -> None:
    run = make("alphadpo", reference=1)
    far = {"mean": 2.0, "std": 1.0, "steps": 50.0}
    state: State = {key: torch.tensor(value).double() for key, value in far.items()}
    assert validate(run, state)["loss"] != pytest.approx(
        validate(run, run.start())["loss"], abs=1e-3
    )


def test_validation_counts_how_often_the_chosen_answer_is_likelier(make: Make) -> None:
    run = make("simpo")
    with torch.no_grad():
        both = run.see(range(PAIRS))["policy"]
    right = (both.chosen.total() > both.rejected.total()).tolist()
    assert 0 < sum(right) < PAIRS
    assert validate(run, None)["chosen_likelier"] == sum(right) / PAIRS
    swapped = [replace(p, chosen=p.rejected, rejected=p.chosen) for p in run.pairs]
    turned = validate(replace(run, pairs=swapped), None)
    assert turned["chosen_likelier"] == (PAIRS - sum(right)) / PAIRS


@method(source="for this test")
def endless(policy: PairLogProbs, *, limit: float = -20.0) -> Tensor:
    """Infinite where an answer is unlikely enough."""
    total = policy.chosen.total()
    return total.where(total > limit, torch.inf) - total


def test_validation_counts_losses_that_are_not_finite(make: Make) -> None:
    run = make(endless)
    with torch.no_grad():
        totals = run.see(range(PAIRS))["policy"].chosen.total()
    bad = int((totals <= -20).sum())
    assert 0 < bad < PAIRS
    seen = validate(run, None)
    assert seen["not_finite"] == bad
    assert seen["loss"] == 0.0


def test_the_validation_split_has_ingredients_of_its_own(make: Make, tmp_path: Path) -> None:
    run = make("madpo")
    held_out = some_pairs(5, seed=9)
    inputs = write_caches(tmp_path / "0", held_out, tiny(), split="validation")
    other = run.on(inputs, "validation")
    assert other.pairs == held_out
    assert other.learner is run.learner
    wanted = load_file(inputs["margins"] / "validation.safetensors")
    margin = other.ingredients.rows([4], 0)["margin"]
    assert float(margin) == float(wanted["chosen"][4] - wanted["rejected"][4])
    assert validate(other, None)["pairs"] == 5


# ---- What a method does not name is not opened


def test_a_method_that_reads_nothing_opens_nothing(pairs: list[TokenPair], tmp_path: Path) -> None:
    nowhere = {name: tmp_path / "nowhere" for name in ("reference", "margins")}
    ingredients = Ingredients.load(load_method("simpo"), nowhere, "train", where=CPU, seed=0)
    assert ingredients.rows([0], 0) == {}
    assert Ingredients.load(load_method("simpo"), {}, "train", where=CPU, seed=0).reference is None
    with pytest.raises(FileNotFoundError):
        Ingredients.load(load_method("dpo"), nowhere, "train", where=CPU, seed=0)
    reference = write_caches(tmp_path / "caches", pairs, tiny())["reference"]
    only = {"reference": reference, "margins": tmp_path / "nowhere"}
    given = Ingredients.load(load_method("dpo"), only, "train", where=CPU, seed=0).rows([0], 0)
    assert set(given) == {"reference"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = make_world(tmp_path_factory.mktemp("world"))
    numbers = {"precision": "fp32", "engine": "padded"}
    score_reference(made.work("reference", {**numbers, "entropy": True}))
    score_mismatched(made.work("mismatched", numbers))
    return made


CELL = {
    "engine": "padded", "method": "dpo", "method_settings": {}, "seed": 0, "epochs": 1,
    "pairs_per_step": 16, "micro_pairs": 8, "checkpoint_steps": 100, "precision": "fp32",
    "lora": None, "reward_epochs": 1, "optimisation": {"learning_rate": 1e-3},
}  # fmt: skip


def models_alive() -> int:
    gc.collect()
    kinds = [type(thing) for thing in gc.get_objects()]
    return sum(
        issubclass(kind, PreTrainedModel) and "ForCausalLM" in kind.__name__ for kind in kinds
    )


@pytest.mark.parametrize(
    "name", ["dpo", "simpo", "madpo", "gammapo", "kto", "wpo", "mallowspo", "tdpo", "tr_dpo"]
)
def test_no_second_model_is_in_memory_while_a_method_trains(name: str, world: World) -> None:
    if "margin" in load_method(name).reads:
        folder = world.folder / "margins"
        folder.mkdir(exist_ok=True)
        for split in ("train", "validation"):
            count = len(load_pairs(world.inputs["tokens"], split))
            zeros = {side: torch.zeros(count) for side in ("chosen", "rejected")}
            save_file(zeros, folder / f"{split}.safetensors")
        world.inputs["margins"] = folder
    before, alive = models_alive(), []

    def look(done: int, of: int, unit: str) -> None:
        if done == of == 6:
            alive.append(models_alive() - before)

    work = world.work(f"cell-{name}", {**CELL, "method": name})
    train_cell(replace(work, report=look))
    # A loss that needs the reference's logits, or moves its weights, has it in memory too.
    assert alive == [2 if name in ("tdpo", "tr_dpo") else 1]


def test_a_cell_that_fails_the_gate_leaves_no_policy(world: World, tmp_path: Path) -> None:
    pairs = load_pairs(world.inputs["tokens"], "train")
    for split in ("train", "validation"):
        save_pairs(tmp_path / f"{split}.safetensors", pairs[::-1])
    work = world.work("void", CELL, tokens=tmp_path)
    with pytest.raises(GateError):
        train_cell(work)
    assert list(work.out.iterdir()) == []


def test_the_manifest_holds_what_the_gate_found(world: World) -> None:
    facts = train_cell(world.work("seen", CELL))
    gate_facts = facts["gate"]
    assert gate_facts["first_loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert gate_facts["first_loss"] == pytest.approx(facts["loss"]["first"], abs=1e-5)
    assert 0 <= gate_facts["reference"] < 1e-5
    assert 0 <= gate_facts["noise_floor"] < 1e-5
    assert facts["validation"]["pairs"] == 48
    assert facts["validation"]["chosen_likelier"] > 0.6
    assert len(order(96, 1, 16, 0)) == facts["steps"]


def test_the_first_loss_is_held_to_what_is_declared_for_the_settings(make: Make) -> None:
    right = make("ipo", settings={"tau": 0.5})
    assert gate(right)["first_loss"] == pytest.approx(1.0, abs=1e-3)

    @method(source="for this test", at_reference=lambda s: 2 * s["high"])
    def half(policy: PairLogProbs, reference: PairLogProbs, *, high: float = 0.0) -> Tensor:
        """Says twice of what it is, which at the default is the same."""
        gap = policy.chosen.total() - reference.chosen.total()
        return high + gap

    assert gate(make(half))["first_loss"] == pytest.approx(0.0, abs=1e-3)
    with pytest.raises(GateError, match="declared by the method"):
        gate(make(half, settings={"high": 3.0}))


def test_validation_looks_through_the_state_that_training_left(make: Make) -> None:
    run = make("alphadpo", reference=1)
    _, state = run.objective()(0, FIRST, run.start())
    assert validate(run, state)["loss"] != pytest.approx(
        validate(run, run.start())["loss"], abs=1e-6
    )


def test_other_answers_of_another_number_of_pairs_are_refused(make: Make) -> None:
    run = make("kto")
    fewer = replace(run.ingredients.mismatched, reference=range(3))
    with pytest.raises(GateError, match="cached mismatched: for 3 pairs, not 12"):
        replace(run, ingredients=replace(run.ingredients, mismatched=fewer))
