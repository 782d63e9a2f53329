"""The engines agree however a run is set up: adapters, micro-batches, recomputed layers, bf16."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine.choice import Choice, prepared
from harness.engine.engines import oracle
from harness.train.device import precision
from harness.train.policy import adapt, without_dropout
from harness.train.run import Run

from .engine_cases import (
    FAST,
    MODELS,
    TOLERANCE,
    Found,
    every_shape,
    find,
    furthest,
    gradients,
    largest,
    near,
    run_of,
    seen_apart,
    with_model,
)
from .models import CPU, write_caches

# What peft and transformers say to each other.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]

ALL = range(len(every_shape()))
Make = Callable[..., Run]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A run of a method and an engine; a model that is given takes the architecture's place."""
    written: dict[str, tuple[Any, Any, Mapping[str, Path]]] = {}

    def make(name: str, engine: Any, architecture: str = "llama", **more: Any) -> Run:
        if architecture not in written:
            model = MODELS[architecture]()
            reference = near(model)
            inputs = write_caches(tmp_path / architecture, every_shape(), reference)
            written[architecture] = model, reference, inputs
        model, reference, inputs = written[architecture]
        return run_of(name, engine, deepcopy(model), reference, inputs, **more)

    return make


# Adapters


ADAPTERS = {
    "all linear": {"rank": 2, "alpha": 4.0, "targets": "all-linear"},
    "the head too": {"rank": 2, "alpha": 4.0, "targets": ["q_proj", "down_proj", "lm_head"]},
    "the head alone": {"rank": 2, "alpha": 4.0, "targets": ["lm_head"]},
}


def adapted(run: Run, lora: Mapping[str, Any]) -> Run:
    """The run with adapters whose second half is not zero, or the first would have no slope."""
    model = without_dropout(adapt(run.learner.model, lora, seed=0))
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draw))
    return with_model(run, model=model)


@pytest.mark.parametrize("name", ["dpo", "tdpo", "wpo", "kto", "beta_dpo"])
@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters_are_trained_as_through_the_oracle(
    kind: str, name: str, make: Make, tmp_path: Path
) -> None:
    assert_adapters_agree(make, tmp_path, ("llama, untied", name, ADAPTERS[kind]))


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "phi", "cohere"])
def test_adapters_of_any_architecture_are(architecture: str, make: Make, tmp_path: Path) -> None:
    assert_adapters_agree(make, tmp_path, (architecture, "dpo", ADAPTERS["all linear"]))


def assert_adapters_agree(
    make: Make, folder: Path, case: tuple[str, str, Mapping[str, Any]]
) -> None:
    architecture, name, lora = case
    results = {}
    for engine, how in {"oracle": oracle, **FAST}.items():
        scratch = folder / f"scratch-{engine}"
        scratch.mkdir()
        results[engine] = find(adapted(make(name, how, architecture), lora), scratch)
    plain = results.pop("oracle")
    assert all("lora_" in parameter for parameter in plain.gradients)
    assert largest(plain.gradients) > 1e-4
    for found in results.values():
        assert seen_apart(found.seen, plain.seen) <= TOLERANCE
        assert furthest(found.gradients, plain.gradients) <= TOLERANCE * largest(plain.gradients)
        assert furthest(found.after, plain.after) <= TOLERANCE


# Micro-batches


@pytest.mark.parametrize("name", ["dpo", "tdpo", "kto", "beta_dpo"])
@pytest.mark.parametrize("engine", FAST)
def test_any_micro_batch_gives_the_gradient_of_the_whole_step(
    engine: str, name: str, make: Make
) -> None:
    """Pairs of one prompt are in one micro-batch or in several: `shared` lays them out anew."""
    plain = gradients(make(name, oracle, micro=len(ALL)), ALL)
    for micro in (1, 3, len(ALL)):
        found = gradients(make(name, FAST[engine], micro=micro), ALL)
        assert furthest(found, plain) <= TOLERANCE * largest(plain), micro


@pytest.mark.parametrize("engine", FAST)
def test_the_order_of_pairs_changes_no_gradient(engine: str, make: Make) -> None:
    plain = gradients(make("dpo", oracle), ALL)
    for order in ([7, 3, 0, 6, 4, 1, 5, 2], [4, 5, 6, 7, 0, 1, 2, 3]):
        found = gradients(make("dpo", FAST[engine], micro=4), order)
        assert furthest(found, plain) <= TOLERANCE * largest(plain)


# Layers that are computed again


TRUNK_OF = {"padded": "padded", "shared": "blocks", "dense": "dense"}


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma2", "bitnet"])
@pytest.mark.parametrize("engine", FAST)
def test_layers_that_are_computed_again_give_the_same_gradient(
    engine: str, architecture: str, make: Make
) -> None:
    """The second time must attend as the first did: the backward pass comes after the engine."""
    plain = gradients(make("dpo", oracle, architecture), ALL)
    run = make("dpo", FAST[engine], architecture)
    calls: list[int] = []
    with prepared(run.learner.model, Choice(TRUNK_OF[engine], recompute=True)):
        layer = run.learner.model.base_model
        layer = (layer.layers if hasattr(layer, "layers") else layer.h)[0]
        layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
        found = gradients(run, ALL)
    assert len(calls) == 2 * 3, "three micro-batches, each twice"
    assert furthest(found, plain) <= TOLERANCE * largest(plain)


# bf16


def distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Of all parameters as one vector, relative to the other's length."""
    gap, size = (
        sum(float(x.square().sum()) for x in tensors) ** 0.5
        for tensors in ([one[name] - other[name] for name in other], other.values())
    )
    return gap / size


def moved(found: Found) -> dict[str, Tensor]:
    return {name: found.after[name] - found.before[name] for name in found.after}


def spread(found: Found, exact: Found) -> float:
    """Root mean square difference per token, in nats, of all that is seen."""
    gaps = [
        (getattr(found.seen[name], side).values - numbers.values)[numbers.mask]
        for name in exact.seen
        for side in ("chosen", "rejected")
        for numbers in (getattr(exact.seen[name], side),)
    ]
    return float(torch.cat(gaps).square().mean().sqrt())


@pytest.mark.parametrize("name", ["dpo", "tdpo"])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2", "gemma2", "bitnet", "phi"])
def test_in_bf16_no_engine_is_further_from_the_truth_than_the_oracle(
    architecture: str, name: str, make: Make, tmp_path: Path
) -> None:
    """The noise floor is what bf16 does to the oracle itself; the truth is the oracle in fp32."""

    def found(engine: Any, kind: str, scratch: str) -> Found:
        (tmp_path / scratch).mkdir()
        with precision(CPU, kind):
            return find(make(name, engine, architecture), tmp_path / scratch)

    exact, narrow = found(oracle, "fp32", "fp32"), found(oracle, "bf16", "bf16")
    floors = (
        spread(narrow, exact),
        distance(narrow.gradients, exact.gradients),
        distance(moved(narrow), moved(exact)),
    )
    assert min(floors) > 1e-3, "this is not bf16"
    for engine, how in FAST.items():
        fast = found(how, "bf16", engine)
        assert spread(fast, exact) <= 1.5 * floors[0]
        assert distance(fast.gradients, exact.gradients) <= 1.5 * floors[1]
        assert distance(moved(fast), moved(exact)) <= 1.5 * floors[2]
