"""The loop: what moves the weights, in which order, and that a killed run goes on all the same."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from harness.contracts.logprobs import PairLogProbs
from harness.contracts.method import Method, State, method
from harness.contracts.task import SmallModel
from harness.data.corpus import make_corpus
from harness.data.token_store import load_pairs
from harness.data.tokens import TokenPair
from harness.engine.engines import oracle, padded
from harness.errors import DataError, DivergedError, RequestError
from harness.registry import load_method, load_task
from harness.train.cell import train_cell
from harness.train.checkpoint import History, Position, load, save
from harness.train.loop import Objective, Optimisation, fit, order
from harness.train.parts import tokens
from harness.train.policy import (
    adapt,
    build_small,
    load_policy,
    load_trained,
    save_policy,
    without_dropout,
)
from harness.train.reference import score_reference
from harness.train.warm_start import _objective, warm_start

from .models import SHAPE, WORDS, World, make_run, make_world, some_pairs, tiny, write_caches

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

LORA = {"rank": 4, "alpha": 8.0, "targets": "all-linear"}
STEPS = 5


class KilledError(Exception):
    """The process ends here."""


def quiet(done: int, of: int, unit: str) -> None:
    """A report that nobody reads."""


def killed_after(step: int) -> Any:
    def report(done: int, of: int, unit: str) -> None:
        if unit == "steps" and done == step:
            raise KilledError

    return report


# ---- The schedule and the order of the data


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6]),
        (
            "cosine",
            [0.5, 1.0, 1.0, *((1 + math.cos(math.pi * done / 6)) / 2 for done in range(1, 6))],
        ),
    ],
)
def test_the_rate_rises_in_the_warm_up_and_falls_to_the_last_step(
    schedule: Any, rates: list[float]
) -> None:
    optimisation = Optimisation(0.01, schedule=schedule, warmup=0.25)
    found = [optimisation.rate(step, 8) for step in range(8)]
    assert found == pytest.approx([0.01 * rate for rate in rates])


def test_the_rate_without_a_warm_up_begins_at_its_peak() -> None:
    for schedule in ("constant", "linear", "cosine"):
        assert Optimisation(0.3, schedule=schedule, warmup=0.0).rate(0, 10) == 0.3  # type: ignore[arg-type]
    assert Optimisation(0.3, schedule="linear", warmup=0.0).rate(9, 10) == pytest.approx(0.03)


def test_a_run_of_one_step_moves() -> None:
    for warmup in (0.0, 0.1, 0.9):
        assert Optimisation(0.3, warmup=warmup).rate(0, 1) == 0.3


@given(share=st.integers(0, 99), steps=st.integers(1, 5000))
@settings(deadline=None)
def test_the_warm_up_has_its_share_of_the_steps(share: int, steps: int) -> None:
    optimisation = Optimisation(1.0, schedule="constant", warmup=share / 100)
    rising = [step for step in range(steps) if optimisation.rate(step, steps) < 1]
    assert len(rising) == max(0, -(-share * steps // 100) - 1)  # its last step is at the peak


@given(
    rows=st.integers(1, 40),
    epochs=st.integers(1, 4),
    per_step=st.integers(1, 9),
    seed=st.integers(0, 9),
)
@settings(deadline=None)
def test_every_row_comes_once_an_epoch(rows: int, epochs: int, per_step: int, seed: int) -> None:
    if rows * epochs < per_step:
        with pytest.raises(DataError, match=f"{rows} rows in {epochs} epochs make no step"):
            order(rows, epochs, per_step, seed)
        return
    steps = order(rows, epochs, per_step, seed)
    assert steps == order(rows, epochs, per_step, seed)
    assert {len(step) for step in steps} == {per_step}
    assert len(steps) == rows * epochs // per_step
    seen = [row for step in steps for row in step]
    for epoch in range(epochs):
        part = seen[epoch * rows : (epoch + 1) * rows]
        assert len(part) == len(set(part))
        assert set(part) <= set(range(rows))
        if (epoch + 1) * rows <= len(seen):
            assert set(part) == set(range(rows))
    assert max(Counter(seen).values()) <= epochs


def test_the_order_differs_by_seed_and_by_epoch() -> None:
    orders = {tuple(row for step in order(50, 2, 10, seed) for row in step) for seed in range(5)}
    assert len(orders) == 5
    for both in orders:
        assert both[:50] != both[50:]


def test_no_epochs_are_no_steps() -> None:
    assert order(10, 0, 4, seed=0) == []


# ---- One step, with a gradient that is known


class Weights(nn.Module):
    """Two parameters, one of which may get no gradient."""

    def __init__(self) -> None:
        super().__init__()
        self.used = nn.Parameter(torch.tensor([3.0, 4.0]))
        self.unused = nn.Parameter(torch.tensor([1.0]))
        self.frozen = nn.Parameter(torch.tensor([7.0]), requires_grad=False)


def slope(model: Weights, *by: Sequence[float], losses: Sequence[float] = ()) -> Objective:
    """Gradients that are given step by step, and losses too."""

    def objective(step: int, _rows: Any, state: State | None) -> tuple[float, State | None]:
        model.used.grad = torch.tensor(by[min(step, len(by) - 1)])
        return (losses[step] if losses else 1.0), state

    return objective


def run_steps(
    model: nn.Module,
    objective: Objective,
    optimisation: Optimisation,
    scratch: Path,
    steps: int = 3,
) -> History:
    _, history = fit(
        model, [[0]] * steps, objective, optimisation, scratch=scratch, checkpoint_steps=1,
        report=quiet,
    )  # fmt: skip
    return history


PLAIN = Optimisation(0.1, schedule="constant", warmup=0.0, clip=0.0)


def test_adam_makes_the_step_that_is_known(tmp_path: Path) -> None:
    model = Weights()
    run_steps(model, slope(model, (2.0, -5.0)), PLAIN, tmp_path)
    # Equal gradients: every step of Adam is the whole rate, against the sign.
    torch.testing.assert_close(model.used.detach(), torch.tensor([2.7, 4.3]))
    assert model.unused.tolist() == [1.0]
    assert model.frozen.tolist() == [7.0]


def test_the_schedule_is_what_the_optimizer_uses(tmp_path: Path) -> None:
    model = Weights()
    falling = replace(PLAIN, schedule="linear", warmup=0.0)
    run_steps(model, slope(model, (1.0, 1.0)), falling, tmp_path, steps=4)
    moved = 0.1 * (1 + 3 / 4 + 2 / 4 + 1 / 4)
    torch.testing.assert_close(model.used.detach(), torch.tensor([3.0, 4.0]) - moved)


def test_weight_decay_shrinks_a_weight_beside_its_gradient(tmp_path: Path) -> None:
    model = Weights()
    run_steps(model, slope(model, (0.0, 0.0)), replace(PLAIN, weight_decay=0.5), tmp_path)
    torch.testing.assert_close(model.used.detach(), torch.tensor([3.0, 4.0]) * 0.95**3)
    assert model.frozen.tolist() == [7.0]


def test_betas_and_epsilon_reach_the_optimizer(tmp_path: Path) -> None:
    model = Weights()
    odd = replace(PLAIN, beta1=0.5, beta2=0.75, epsilon=1.0)
    run_steps(model, slope(model, (2.0, 0.0), (4.0, 0.0)), odd, tmp_path, steps=2)
    first = 2.0 / (2.0 + 1.0)
    mean = (0.5 * (0.5 * 2) + 0.5 * 4) / (1 - 0.25)
    square = (0.75 * (0.25 * 4) + 0.25 * 16) / (1 - 0.75**2)
    expected = 3.0 - 0.1 * first - 0.1 * mean / (math.sqrt(square) + 1.0)
    assert float(model.used.detach()[0]) == pytest.approx(expected, abs=1e-6)


def test_a_gradient_over_the_limit_is_shortened_and_counted(tmp_path: Path) -> None:
    model, limit = Weights(), replace(PLAIN, clip=1.0)
    objective = slope(model, (30.0, 40.0), (0.3, 0.4), (0.0, -5.0))
    history = run_steps(model, objective, limit, tmp_path)
    assert history.norms == pytest.approx([50.0, 0.5, 5.0])  # as they were before clipping
    assert history.clipped == 2
    moments = load_file(tmp_path / "step-2" / "tensors.safetensors")
    # What Adam was given: (0.6, 0.8), of length one, then (0.3, 0.4) as it was.
    mean = 0.9 * 0.1 * torch.tensor([0.6, 0.8]) + 0.1 * torch.tensor([0.3, 0.4])
    torch.testing.assert_close(moments["adam.exp_avg.used"], mean)


def test_one_process_of_a_run_writes_and_reports_and_all_read(tmp_path: Path) -> None:
    def run(leads: bool, steps: int, told: list[int]) -> History:
        model = Weights()
        return fit(
            model, [[0]] * steps, slope(model, (2.0, -5.0)), PLAIN, scratch=tmp_path,
            checkpoint_steps=1, report=lambda done, *_: told.append(done), leads=leads,
        )[1]  # fmt: skip

    follower: list[int] = []
    assert len(run(False, 3, follower).losses) == 3
    assert (follower, list(tmp_path.iterdir())) == ([], [])
    leader: list[int] = []
    run(True, 3, leader)
    assert (leader, [p.name for p in tmp_path.iterdir()]) == ([1, 2, 3], ["step-2"])
    history = run(False, 3, follower)
    assert len(history.losses) == 3  # two of them read, one made
    assert [p.name for p in tmp_path.iterdir()] == ["step-2"]


def test_clipping_can_be_off(tmp_path: Path) -> None:
    model = Weights()
    history = run_steps(model, slope(model, (30.0, 40.0)), PLAIN, tmp_path, steps=2)
    assert history.clipped == 0
    moments = load_file(tmp_path / "step-1" / "tensors.safetensors")
    torch.testing.assert_close(moments["adam.exp_avg.used"], torch.tensor([3.0, 4.0]))


def test_the_gradient_of_a_step_does_not_stay_for_the_next(tmp_path: Path) -> None:
    model = Weights()
    seen = []

    def objective(step: int, _rows: Any, state: State | None) -> tuple[float, State | None]:
        seen.append(model.used.grad)
        model.used.grad = torch.ones(2)
        return 1.0, state

    run_steps(model, objective, PLAIN, tmp_path)
    assert seen == [None] * 3


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_ends_the_run_and_names_the_step(
    bad: float, tmp_path: Path
) -> None:
    model = Weights()
    with pytest.raises(DivergedError, match=rf"loss became {bad} at step 1"):
        run_steps(model, slope(model, (1.0, 1.0), losses=[1.0, bad, 1.0]), PLAIN, tmp_path)
    # The step before it stands, and nothing after.
    torch.testing.assert_close(model.used.detach(), torch.tensor([2.9, 3.9]))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_ends_the_run_and_names_the_step(
    bad: float, tmp_path: Path
) -> None:
    model = Weights()
    with pytest.raises(DivergedError, match=rf"gradient became {bad} at step 2"):
        run_steps(model, slope(model, (1.0, 1.0), (1.0, 1.0), (1.0, bad)), PLAIN, tmp_path)
    assert bool(model.used.isfinite().all())


# ---- Killed and gone on


@method(source="for this test", coupled=True, initial={"mean": 0.0})
def shaken(policy: PairLogProbs, state: State, rng: torch.Generator) -> tuple[Tensor, State]:
    """All that can be forgotten: memory, random numbers, statistics of the step."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    noise = 0.1 * torch.randn(len(gap), generator=rng)
    mean = 0.5 * state["mean"] + 0.5 * gap.detach().double().mean()
    return -logsigmoid(gap + noise - mean.to(gap)), {"mean": mean}


@pytest.fixture(scope="module")
def pairs() -> list[TokenPair]:
    return some_pairs(4 * STEPS, seed=5)


@pytest.fixture(scope="module")
def inputs(pairs: list[TokenPair], tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return write_caches(tmp_path_factory.mktemp("caches"), pairs, tiny(seed=1))


@pytest.fixture(scope="module")
def train(pairs: list[TokenPair], inputs: Mapping[str, Path]) -> Any:
    """Five steps of a run from its last checkpoint, in a process that knows nothing before."""

    def train(
        which: Method, scratch: Path, report: Any = quiet, *, lora: bool = False, seed: int = 0
    ) -> tuple[dict[str, Tensor], State | None, History]:
        torch.manual_seed(int.from_bytes(os.urandom(2), "big"))
        model = without_dropout(adapt(tiny(), LORA if lora else None, seed=seed))
        run = make_run(which, model, pairs, inputs, micro=2, seed=seed)
        steps = order(len(pairs), 1, 4, seed)
        state, history = fit(
            model, steps, run.objective(), Optimisation(1e-3, weight_decay=0.01), scratch=scratch,
            checkpoint_steps=1, report=report, state=run.start(),
        )  # fmt: skip
        weights = {n: p.detach().clone() for n, p in model.named_parameters()}
        return weights, state, history

    return train


def same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def checkpoint(scratch: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    (folder,) = scratch.glob("step-*")
    tensors = load_file(folder / "tensors.safetensors")
    del tensors["rng"]  # of the process, which begins anywhere here
    return tensors, json.loads((folder / "facts.json").read_text())


@pytest.mark.parametrize(
    ("name", "lora"),
    [("dpo", False), ("dpo", True), ("alphadpo", False), ("alphadpo", True), ("shaken", False)],
)
def test_a_run_that_was_killed_ends_with_the_bits_of_one_that_was_not(
    name: str, lora: bool, train: Any, tmp_path: Path
) -> None:
    which = shaken if name == "shaken" else load_method(name)
    weights, state, history = train(which, tmp_path / "whole", lora=lora)
    assert len(history.losses) == STEPS
    assert len(set(history.losses)) == STEPS
    for step in range(1, STEPS):
        scratch = tmp_path / f"killed-{step}"
        with pytest.raises(KilledError):
            train(which, scratch, killed_after(step), lora=lora)
        again, after, curve = train(which, scratch, lora=lora)
        assert same_bits(again, weights)
        assert curve == history
        assert same_bits(after or {}, state or {})
        # The last checkpoint holds Adam's moments, and the state in full precision.
        tensors, facts = checkpoint(scratch)
        whole, whole_facts = checkpoint(tmp_path / "whole")
        assert same_bits(tensors, whole)
        assert facts == whole_facts
        kept = {key.split(".")[1] for key in tensors if key.startswith("adam.")}
        assert kept == {"step", "exp_avg", "exp_avg_sq"}


def test_a_run_that_is_killed_at_every_step_gets_there_too(train: Any, tmp_path: Path) -> None:
    weights, state, history = train(load_method("alphadpo"), tmp_path / "whole")
    for step in range(1, STEPS):
        with pytest.raises(KilledError):
            train(load_method("alphadpo"), tmp_path / "killed", killed_after(step))
    again, after, curve = train(load_method("alphadpo"), tmp_path / "killed")
    assert same_bits(again, weights)
    assert same_bits(after, state)
    assert curve == history


def test_what_is_forgotten_would_be_seen(train: Any, tmp_path: Path) -> None:
    """Each part of a checkpoint is needed: without it the run ends elsewhere."""
    which = load_method("alphadpo")
    weights, _, _ = train(which, tmp_path / "whole")
    for part in ("weight.", "adam.exp_avg.", "adam.exp_avg_sq.", "adam.step.", "state."):
        scratch = tmp_path / part
        with pytest.raises(KilledError):
            train(which, scratch, killed_after(3))
        file = scratch / "step-3" / "tensors.safetensors"
        tensors = load_file(file)
        first = adapt(tiny(), None, 0).state_dict()
        for name in [n for n in tensors if n.startswith(part)]:
            blank = first[name[7:]] if part == "weight." else torch.zeros_like(tensors[name])
            tensors[name] = blank.contiguous().clone()
        save_file(tensors, file)
        again, _, _ = train(which, scratch)
        assert not same_bits(again, weights), part


def test_a_checkpoint_that_is_half_written_is_not_taken(train: Any, tmp_path: Path) -> None:
    which = load_method("alphadpo")
    weights, _, history = train(which, tmp_path / "whole")
    scratch = tmp_path / "killed"
    (scratch / "writing").mkdir(parents=True)
    (scratch / "writing" / "tensors.safetensors").write_bytes(b"half")
    again, _, curve = train(which, scratch)
    assert same_bits(again, weights)
    assert curve == history
    # And beside a whole one, one step ahead of it.
    scratch = tmp_path / "beside"
    with pytest.raises(KilledError):
        train(which, scratch, killed_after(2))
    (scratch / "writing").mkdir()
    shutil.copy(scratch / "step-2" / "facts.json", scratch / "writing" / "facts.json")
    again, _, _ = train(which, scratch)
    assert same_bits(again, weights)


@pytest.mark.parametrize("when", ["before the rename", "after it"])
def test_a_kill_while_a_checkpoint_is_written_leaves_a_whole_one(
    when: str, train: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    which = load_method("dpo")
    weights, _, history = train(which, tmp_path / "whole")
    scratch, real, calls = tmp_path / "killed", os.replace, []

    def replace_or_die(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) == 3:
            if when == "after it":
                real(source, target)
            raise KilledError
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", replace_or_die)
        with pytest.raises(KilledError):
            train(which, scratch)
    names = {folder.name for folder in scratch.iterdir()}
    assert names == ({"step-2", "writing"} if when == "before the rename" else {"step-2", "step-3"})
    again, _, curve = train(which, scratch)
    assert same_bits(again, weights)
    assert curve == history


def test_the_generator_of_the_process_goes_on_too(tmp_path: Path) -> None:
    model = Weights()
    optimizer = torch.optim.AdamW(model.parameters())
    parameters = dict(model.named_parameters())
    torch.manual_seed(3)
    torch.rand(5)
    save(tmp_path, Position(1, None, History([0.1])), parameters, optimizer, {})
    wanted = torch.rand(3)
    torch.manual_seed(99)
    at = load(tmp_path, parameters, optimizer, {})
    assert torch.equal(torch.rand(3), wanted)
    assert at == Position(1, None, History([0.1]))


def test_the_newest_checkpoint_is_told_by_number_and_not_by_name(tmp_path: Path) -> None:
    model = Weights()
    optimizer = torch.optim.AdamW(model.parameters())
    parameters = dict(model.named_parameters())
    assert load(tmp_path / "nowhere", parameters, optimizer, {}) is None
    save(tmp_path, Position(9, None, History()), parameters, optimizer, {})
    shutil.copytree(tmp_path / "step-9", tmp_path / "kept")
    save(tmp_path, Position(10, {}, History()), parameters, optimizer, {})
    shutil.copytree(tmp_path / "kept", tmp_path / "step-9")
    at = load(tmp_path, parameters, optimizer, {})
    assert at == Position(10, {}, History())


# ---- Seeds and adapters


def curve_hash(history: History) -> str:
    return hashlib.sha256(json.dumps(vars(history)).encode()).hexdigest()


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
def test_a_seed_gives_one_curve_and_another_seed_another(
    lora: bool, train: Any, tmp_path: Path
) -> None:
    runs = [
        train(load_method("dpo"), tmp_path / str(i), lora=lora, seed=seed)
        for i, seed in enumerate((0, 0, 1))
    ]
    hashes = [curve_hash(history) for _, _, history in runs]
    assert hashes[0] == hashes[1] != hashes[2]
    assert same_bits(runs[0][0], runs[1][0])


def test_only_adapters_are_trained(train: Any, tmp_path: Path) -> None:
    start = {n: p.detach() for n, p in adapt(tiny(), LORA, seed=0).named_parameters()}
    after, _, _ = train(load_method("dpo"), tmp_path, lora=True)
    moved = {name for name in after if not torch.equal(after[name], start[name])}
    assert moved == {name for name in after if "lora_" in name}
    # Every linear map but the head: 7 in each of two layers, two matrices each.
    assert len(moved) == 28
    rank = {after[name].shape[0] for name in moved if "lora_A" in name}
    assert rank == {4}
    tensors, _ = checkpoint(tmp_path)
    assert {name.split(".", 1)[1] for name in tensors if name.startswith("weight.")} == moved


def test_adapters_go_where_they_are_sent() -> None:
    lora = {"rank": 2, "alpha": 4.0, "targets": ["q_proj", "v_proj"]}
    model = adapt(tiny(), lora, seed=0)
    names = [n for n, p in model.named_parameters() if p.requires_grad]
    assert {name.split(".")[-4] for name in names} == {"q_proj", "v_proj"}
    assert len(names) == 8


def test_a_target_that_the_model_does_not_have_is_named() -> None:
    for targets in (["q_porj"], ["q_proj", "v_porj"]):
        lora = {"rank": 2, "alpha": 4.0, "targets": targets}
        with pytest.raises(
            RequestError, match=r"unknown LoRA target '._porj': did you mean '._proj'"
        ):
            adapt(tiny(), lora, seed=0)


# ---- Policies on disk


def broken(folder: Path, how: str) -> Path:
    """A model folder that is not what it says."""
    model, tokenizer = build_small(SmallModel(WORDS, SHAPE), seed=0)
    save_policy(model, tokenizer, folder)
    weights, config = folder / "model.safetensors", folder / "config.json"
    if how == "cut off":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "without a head":
        model.model.save_pretrained(folder)
    elif how == "no safetensors":
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        weights.unlink()
    else:
        old, new = how.split(" for ")
        assert old in config.read_text()
        config.write_text(config.read_text().replace(old, new))
    return folder


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ("cut off", "can be loaded"),
        ("no safetensors", "can be loaded"),
        ('"intermediate_size": 48 for "intermediate_size": 40', "can be loaded"),
        ('"llama" for "no_such_model"', "can be loaded"),
        ('"num_hidden_layers": 1 for "num_hidden_layers": 2', r"lacks 9 .*layers\.1\..* random"),
        ("without a head", r"lacks 1 .* lm_head"),
    ],
)
def test_a_model_that_is_not_whole_is_refused(how: str, why: str, tmp_path: Path) -> None:
    folder = broken(tmp_path / "model", how)
    with pytest.raises(DataError, match=why):
        load_policy(folder)


def test_an_adapter_is_no_policy_to_begin_with(tmp_path: Path) -> None:
    # transformers would load it, frozen, and save it without the model that it was made for.
    model, tokenizer = build_small(SmallModel(WORDS, SHAPE), seed=0)
    save_policy(model, tokenizer, tmp_path / "base")
    adapted = adapt(load_policy(tmp_path / "base")[0], LORA, seed=0)
    save_policy(adapted, tokenizer, tmp_path / "adapter")
    with pytest.raises(DataError, match="is an adapter: merge it"):
        load_policy(tmp_path / "adapter")


def test_a_model_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    model, tokenizer = build_small(SmallModel(WORDS, SHAPE), seed=3)
    save_policy(model, tokenizer, tmp_path)
    again, words = load_policy(tmp_path)
    assert same_bits(again.state_dict(), model.state_dict())
    assert words("the film")["input_ids"] == tokenizer("the film")["input_ids"]
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    other, _ = build_small(SmallModel(WORDS, SHAPE), seed=4)
    assert not same_bits(other.state_dict(), model.state_dict())
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    assert {p.dtype for p in load_policy(tmp_path)[0].parameters()} == {torch.float32}


# ---- The warm start


@pytest.mark.parametrize("micro", [1, 3, 100])
def test_the_loss_of_a_warm_start_is_per_token_for_any_split(micro: int) -> None:
    model = tiny()
    sequences = [(pair.prompt, pair.chosen) for pair in some_pairs(7, seed=2)]
    loss, _ = _objective(padded, model, sequences, micro)(0, [6, 0, 3, 2], None)
    slope = model.model.norm.weight.grad.clone()
    model.zero_grad()
    found = oracle(model, [sequences[row] for row in (6, 0, 3, 2)])["logprobs"]
    plain = -found.values[found.mask].mean()
    torch.autograd.backward(plain)
    assert loss == pytest.approx(float(plain.detach()), abs=1e-5)
    torch.testing.assert_close(slope, model.model.norm.weight.grad, atol=1e-5, rtol=0)


def test_a_warm_start_learns_its_texts_and_goes_on_where_it_was_killed(world: World) -> None:
    task = {"task": "sentiment", "task_settings": load_task("sentiment").resolve()}
    sizes = {"texts": 96, "train": 4, "validation": 4, "test": 4}
    corpus = world.work("reviews", {**task, "sizes": sizes, "seed": 0})
    assert make_corpus(corpus)["texts"] == 96
    settings = {
        **task, "model": None, "seed": 0, "texts": 90, "max_tokens": 40, "epochs": 2,
        "per_step": 15, "micro": 8, "precision": "fp32", "engine": "shared", "learning_rate": 1e-2,
        "weight_decay": 0.01,
        "checkpoint_steps": 5,
    }  # fmt: skip
    whole = world.work("warm", settings, corpus=corpus.out)
    facts = warm_start(whole)
    assert (facts["texts"], facts["steps"]) == (90, 12)
    vocabulary = load_policy(whole.out)[0].config.vocab_size
    assert facts["loss"]["first"][0] == pytest.approx(math.log(vocabulary), abs=0.3)
    assert facts["loss"]["last"][0] < facts["loss"]["first"][0] - 1
    killed = world.work("warm again", settings, corpus=corpus.out)
    with pytest.raises(KilledError):
        warm_start(replace(killed, report=killed_after(8)))
    assert warm_start(killed) == facts
    assert results(killed.out) == results(whole.out)
    # No epochs leave a model that is named as it is.
    still = world.work(
        "still", {**settings, "model": str(whole.out), "epochs": 0}, corpus=corpus.out
    )
    assert warm_start(still)["steps"] == 0
    assert results(still.out)["model.safetensors"] == results(whole.out)["model.safetensors"]


# ---- A whole cell


CELL = {
    "engine": "padded", "method": "alphadpo", "method_settings": {}, "seed": 0, "epochs": 1,
    "pairs_per_step": 16, "micro_pairs": 8, "checkpoint_steps": 1, "precision": "fp32",
    "lora": None, "reward_epochs": 1,
    "optimisation": {"learning_rate": 3e-3, "schedule": "cosine", "warmup": 0.1},
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    found = make_world(tmp_path_factory.mktemp("world"))
    score_reference(
        found.work("reference", {"precision": "fp32", "engine": "padded", "entropy": False})
    )
    return found


def results(folder: Path) -> dict[str, bytes]:
    names = ("model.safetensors", "adapter_model.safetensors", "history.json")
    return {name: (folder / name).read_bytes() for name in names if (folder / name).exists()}


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_cell_that_was_killed_leaves_the_same_files(lora: Any, world: World) -> None:
    name = "full" if lora is None else "lora"
    whole = world.work(f"whole-{name}", {**CELL, "lora": lora})
    facts = train_cell(whole)
    killed = world.work(f"killed-{name}", {**CELL, "lora": lora})
    with pytest.raises(KilledError):
        train_cell(replace(killed, report=killed_after(3)))
    again = train_cell(killed)
    assert results(killed.out) == results(whole.out)
    assert len(results(whole.out)) == 2
    assert again == facts
    assert facts["steps"] == 6
    assert facts["pairs"] == 96
    history = json.loads((whole.out / "history.json").read_text())
    assert history["state"]["steps"] == 6.0


def test_a_cell_in_bf16_trains(world: World) -> None:
    facts = {}
    for precision in ("fp32", "bf16"):
        reference = world.work(
            f"reference-{precision}",
            {"precision": precision, "engine": "padded", "entropy": False},
        )
        score_reference(reference)
        work = world.work(f"cell-{precision}", {**CELL, "method": "dpo", "precision": precision})
        facts[precision] = train_cell(
            replace(work, inputs={**work.inputs, "reference": reference.out})
        )
    first, last = facts["bf16"]["loss"]["first"], facts["bf16"]["loss"]["last"]
    assert first == pytest.approx(math.log(2), abs=1e-3)
    # A model that never saw its own steps would stay where it was.
    assert last < first - 0.05
    assert last == pytest.approx(facts["fp32"]["loss"]["last"], abs=0.02)
    assert facts["bf16"]["gate"]["noise_floor"] > facts["fp32"]["gate"]["noise_floor"]


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_trained_policy_is_read_back_as_it_was_left(lora: Any, world: World) -> None:
    work = world.work(f"kept-{lora is None}", {**CELL, "method": "simpo", "lora": lora})
    train_cell(work)
    trained, _ = load_trained(work.inputs["policy"], work.out)
    start, _ = load_policy(work.inputs["policy"])
    ids = torch.tensor([[1, 5, 6, 7]])
    with torch.no_grad():
        new, old = trained(input_ids=ids).logits, start(input_ids=ids).logits
    assert float((new - old).abs().max()) > 1e-3
    files = {path.name for path in work.out.iterdir()}
    assert ("adapter_model.safetensors" in files) == (lora is not None)
    assert ("model.safetensors" in files) == (lora is None)
    assert not any(path.suffix in (".bin", ".pt", ".pkl") for path in work.out.iterdir())


def test_a_cell_says_which_pairs_were_longer_than_a_micro_batch(world: World) -> None:
    sizes = sorted(tokens(pair) for pair in load_pairs(world.inputs["tokens"], "train"))
    long = sum(size > sizes[48] for size in sizes)
    assert 1 < long < 96
    told = {}
    for most in (10_000, sizes[48], 1):
        work = world.work(f"long-{most}", {**CELL, "method": "simpo", "micro_tokens": most})
        told[most] = train_cell(work)
    assert told[10_000]["alone"] is None
    assert told[sizes[48]]["alone"] == (
        f"{long} pairs are longer than budget.micro_tokens = {sizes[48]} and went alone"
    )
    assert told[1]["alone"].startswith("96 pairs")
    assert told[1]["loss"] == pytest.approx(told[10_000]["loss"], abs=1e-4)
    assert told[1]["processes"] == 1


def test_too_few_pairs_for_a_step_are_named(world: World) -> None:
    work = world.work("few", {**CELL, "pairs_per_step": 97})
    with pytest.raises(DataError, match="96 rows in 1 epochs make no step of 97"):
        train_cell(work)
