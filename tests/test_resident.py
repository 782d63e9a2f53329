"""The resident policy: loaded once, lent to many, and the same for everybody who borrows it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.data.tokens import TokenRules
from harness.errors import DivergedError, HarnessError
from harness.train.cell import train_cell
from harness.train.policy import adapt, load_policy, save_policy
from harness.train.reference import score_reference
from harness.train.resident import Base, Residence

from .models import World, make_world, tiny

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

CPU = torch.device("cpu")
LORA = {"rank": 2, "alpha": 4.0, "targets": "all-linear"}
CELL = {
    "engine": "padded", "method": "dpo", "method_settings": {}, "seed": 0, "epochs": 1,
    "pairs_per_step": 8, "micro_pairs": 8, "checkpoint_steps": 100, "precision": "fp32",
    "optimisation": {"learning_rate": 1e-2},
}  # fmt: skip
SCORED = {"precision": "fp32", "engine": "padded", "entropy": False}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = make_world(tmp_path_factory.mktemp("world"), pairs=24, held_out=8)
    score_reference(made.work("reference", SCORED))
    return made


@pytest.fixture
def policy(world: World) -> Path:
    return world.inputs["policy"]


def weights(model: Any) -> dict[str, Any]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[n], other[n]) for n in one)


def first(model: Any) -> Any:
    return next(iter(model.parameters()))


def places(base: Base) -> set[int]:
    return {p.data_ptr() for p in base.shared().parameters()}


def train(model: Any, steps: int = 2) -> None:
    wanted = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(wanted, lr=0.1)
    ids = torch.arange(4, 12)[None]
    for _ in range(steps):
        torch.autograd.backward(model(input_ids=ids, labels=ids).loss)
        optimizer.step()
        optimizer.zero_grad()


def files(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    if "adapter_config.json" in found:  # names its targets in the order of a set
        config = json.loads(found["adapter_config.json"])
        config["target_modules"].sort()
        found["adapter_config.json"] = config
    return found


def trained_here(world: World, name: str, **settings: Any) -> dict[str, Any]:
    work = world.work(name, {**CELL, **settings})
    train_cell(work)
    return files(work.out)


def trained_elsewhere(world: World, name: str, **settings: Any) -> dict[str, Any]:
    """The same cell by a process of its own, which nothing else ran in."""
    work = world.work(name, {**CELL, **settings})
    inputs = {name: str(path) for name, path in work.inputs.items()}
    told = json.dumps([dict(work.settings), inputs, str(work.out), str(work.scratch)])
    code = (
        "import json, sys; from pathlib import Path\n"
        "from harness.store.stage import Work; from harness.train.cell import train_cell\n"
        "settings, inputs, out, scratch = json.loads(sys.argv[1])\n"
        "inputs = {name: Path(path) for name, path in inputs.items()}\n"
        "train_cell(Work(settings, inputs, Path(out), Path(scratch), lambda *_: None))\n"
    )
    # Sums of floats depend on how many threads share them.
    head = f"import torch; torch.set_num_threads({torch.get_num_threads()})\n"
    subprocess.run([sys.executable, "-W", "ignore", "-c", head + code, told], check=True)
    return files(work.out)


# ---- What is lent


def test_a_policy_is_loaded_once_and_its_weights_are_shared(policy: Path) -> None:
    home = Residence(most=1)
    with home.borrowed(policy, CPU) as base:
        one = places(base)
        assert same(weights(base.shared()), weights(load_policy(policy)[0]))
    with home.borrowed(policy, CPU) as base:
        assert places(base) == one
        assert not places(base) & {p.data_ptr() for p in base.own().parameters()}


def test_nothing_that_a_borrower_does_to_its_module_is_seen_by_the_next(policy: Path) -> None:
    home = Residence(most=1)
    plain = load_policy(policy)[0]
    with home.borrowed(policy, CPU) as base:
        model = base.shared()
        model.generation_config.eos_token_id = 5
        model.config.use_cache = not model.config.use_cache
        model.train()
        train(adapt(model, LORA, 0))
        model.requires_grad_()
        first(model).grad = torch.ones_like(first(model))
        model.register_forward_hook(lambda *_: pytest.fail("a hook of another stage"))
    with home.borrowed(policy, CPU) as base:
        model = base.shared()
        assert model.generation_config.eos_token_id == plain.generation_config.eos_token_id
        assert model.config.to_dict() == plain.config.to_dict()
        assert not any(module.training for module in model.modules())
        assert [n for n, _ in model.named_modules()] == [n for n, _ in plain.named_modules()]
        assert not any(p.requires_grad for p in model.parameters())
        assert all(p.grad is None for p in model.parameters())
        model(input_ids=torch.tensor([[1, 4, 5]]))
        assert same(weights(model), weights(plain))


def test_adapters_are_trained_on_the_resident_weights_themselves(policy: Path) -> None:
    with Residence(most=1).borrowed(policy, CPU) as base:
        before = places(base)
        model = adapt(base.shared(), LORA, 0)
        held = {p.data_ptr() for n, p in model.named_parameters() if "lora_" not in n}
        assert held == before
        assert {n for n, p in model.named_parameters() if p.requires_grad} == {
            n for n, _ in model.named_parameters() if "lora_" in n
        }


def test_full_fine_tuning_never_changes_the_resident_weights(policy: Path) -> None:
    home = Residence(most=1)
    with home.borrowed(policy, CPU) as base:
        before = weights(base.shared())
        model = base.own()
        assert all(p.requires_grad for p in model.parameters())
        train(model)
        assert not same(weights(model), before)
        assert same(weights(base.shared()), before)


def test_tied_weights_stay_tied(tmp_path: Path, policy: Path) -> None:
    save_policy(tiny("llama, tied"), load_policy(policy)[1], tmp_path)
    with Residence(most=1).borrowed(tmp_path, CPU) as base:
        model = base.shared()
        assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


@pytest.mark.parametrize("lora", [LORA, None])
def test_a_trained_policy_is_the_one_that_was_saved(
    lora: Any, tmp_path: Path, policy: Path
) -> None:
    model, tokenizer = load_policy(policy)
    model = adapt(model, lora, 0)
    train(model)
    save_policy(model, tokenizer, tmp_path)
    ids = torch.arange(3, 12)[None]
    with Residence(most=1).borrowed(policy, CPU) as base, torch.no_grad():
        found = base.trained(tmp_path)(input_ids=ids).logits
        assert torch.equal(found, model(input_ids=ids).logits)
        assert not torch.equal(found, base.shared()(input_ids=ids).logits)


def test_reading_with_the_tokenizer_changes_nothing_of_what_is_saved(
    tmp_path: Path, policy: Path
) -> None:
    with Residence(most=1).borrowed(policy, CPU) as base:
        rules = TokenRules.of(base.tokenizer)
        rules.text(rules.prompt_ids("the film") + rules.response_ids(" is good ."))
        base.tokenizer.save_pretrained(tmp_path / "read")
    load_policy(policy)[1].save_pretrained(tmp_path / "fresh")
    assert files(tmp_path / "read") == files(tmp_path / "fresh")


# ---- What is kept


def test_another_policy_takes_the_place_of_the_first(tmp_path: Path, policy: Path) -> None:
    save_policy(tiny(), load_policy(policy)[1], tmp_path)
    home = Residence(most=1)
    with home.borrowed(policy, CPU) as base:
        one = base
    with home.borrowed(tmp_path, CPU) as base:
        assert len(home) == 1
        assert not same(weights(base.shared()), weights(one.shared()))
    with home.borrowed(policy, CPU) as base:
        assert base is not one
        assert same(weights(base.shared()), weights(one.shared()))


def test_of_two_the_one_that_was_used_last_is_kept(tmp_path: Path, policy: Path) -> None:
    home, lent = Residence(most=2), []
    for name in ("a", "b"):
        save_policy(tiny(), load_policy(policy)[1], tmp_path / name)
    for folder in (policy, tmp_path / "a", policy, tmp_path / "b", policy):
        with home.borrowed(folder, CPU) as base:
            lent.append(base)
    assert len(home) == 2
    assert lent[0] is lent[2] is lent[4]


def test_a_folder_that_was_written_anew_is_read_anew(tmp_path: Path, policy: Path) -> None:
    tokenizer = load_policy(policy)[1]
    folder, home = tmp_path / "policy", Residence(most=1)
    save_policy(tiny(seed=1), tokenizer, folder)
    with home.borrowed(folder, CPU) as base:
        one = weights(base.shared())
    save_policy(tiny(seed=2), tokenizer, tmp_path / "new")
    (tmp_path / "new" / "model.safetensors").rename(folder / "model.safetensors")
    with home.borrowed(folder, CPU) as base:
        assert not same(weights(base.shared()), one)


def test_what_is_borrowed_twice_at_once_is_the_same(policy: Path) -> None:
    home = Residence(most=1)
    with home.borrowed(policy, CPU) as outer, home.borrowed(policy, CPU) as inner:
        assert inner is outer
    assert len(home) == 1


# ---- What goes wrong


@pytest.mark.parametrize("kind", [DivergedError, KeyboardInterrupt])
def test_a_stage_that_failed_leaves_nothing_behind(kind: type[BaseException], policy: Path) -> None:
    home = Residence(most=1)

    def fail() -> None:
        with home.borrowed(policy, CPU) as base:
            first(adapt(base.shared(), LORA, 0).get_base_model()).data.add_(1.0)
            raise kind("at step 3")

    with pytest.raises(kind, match="at step 3"):
        fail()
    assert len(home) == 0
    with home.borrowed(policy, CPU) as base:
        assert same(weights(base.shared()), weights(load_policy(policy)[0]))


def test_who_writes_to_the_shared_weights_is_told_and_nobody_else_sees_it(policy: Path) -> None:
    home = Residence(most=1)

    def write() -> None:
        with home.borrowed(policy, CPU) as base:
            row = first(base.shared()).data.view(torch.int32)[0]
            row[0] ^= 1  # the last bit of one number, past all version counters

    for _ in range(2):
        with pytest.raises(HarnessError, match=r"changed while they were on loan.*`own\(\)`"):
            write()
        assert len(home) == 0
    with home.borrowed(policy, CPU) as base:
        assert same(weights(base.shared()), weights(load_policy(policy)[0]))


@pytest.mark.parametrize(
    "change", [torch.neg, lambda w: w.flip(0), lambda w: w.flip(1), lambda w: w.roll(1, 0)],
    ids=["signs", "rows", "columns", "one row further"],
)  # fmt: skip
def test_values_that_change_places_or_signs_are_noticed(change: Any, policy: Path) -> None:
    def write() -> None:
        with Residence(most=1).borrowed(policy, CPU) as base:
            matrix = base.shared().model.layers[0].mlp.up_proj.weight.data
            matrix.copy_(change(matrix))

    with pytest.raises(HarnessError, match="changed while they were on loan"):
        write()


def test_a_merged_adapter_is_noticed(policy: Path) -> None:
    def merge() -> None:
        with Residence(most=1).borrowed(policy, CPU) as base:
            model = adapt(base.shared(), LORA, 0)
            train(model)
            model.merge_adapter()

    with pytest.raises(HarnessError, match="on loan"):
        merge()


# ---- Cells


@pytest.mark.parametrize("lora", [LORA, None])
def test_cells_in_one_process_give_the_bytes_of_cells_in_processes_of_their_own(
    lora: Any, world: World, policy: Path
) -> None:
    before, kind = files(policy), "lora" if lora else "full"
    alone = trained_elsewhere(world, f"{kind} alone", lora=lora)
    trained_here(world, f"{kind} earlier", lora=lora, method="simpo", seed=3)
    again = trained_here(world, f"{kind} again", lora=lora)
    assert again == alone
    other = trained_here(world, f"{kind} other", lora=lora, seed=1)
    assert other["history.json"] != again["history.json"]
    assert other == trained_elsewhere(world, f"{kind} other alone", lora=lora, seed=1)
    assert files(policy) == before


def test_cells_after_one_that_diverged_are_what_they_were(world: World) -> None:
    alone = trained_here(world, "before", lora=LORA)
    with pytest.raises(DivergedError):
        trained_here(world, "wild", lora=LORA, optimisation={"learning_rate": 1e30})
    assert trained_here(world, "after", lora=LORA) == alone


@pytest.mark.gpu
def test_on_a_gpu_a_copy_is_no_view(policy: Path) -> None:
    where = torch.device("cuda")
    with Residence(most=1).borrowed(policy, where) as base:
        before = weights(base.shared())
        model = base.own()
        assert not places(base) & {p.data_ptr() for p in model.parameters()}
        train(adapt(base.shared(), LORA, 0).to(where), steps=0)
        with torch.no_grad():
            first(model).add_(1.0)
        assert same(weights(base.shared()), before)
