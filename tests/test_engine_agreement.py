"""The engines agree with the oracle: for every method and architecture, through five steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.engine.engines import oracle
from harness.registry import found
from harness.train.policy import load_policy, without_dropout

from .engine_cases import (
    FAST,
    MODELS,
    OPTIMISATION,
    TOLERANCE,
    Found,
    every_shape,
    find,
    furthest,
    largest,
    near,
    run_of,
    seen_apart,
)
from .models import write_caches

METHODS = [name for name, plugin in found("methods").items() if plugin.origin == "built in"]
# One that reads nothing but the policy, and one for each thing that can be read beside it; coupled,
# with a state, random, with a reference that moves, and steep where the policy has moved.
READERS = [
    "beta_dpo",
    "chipo",
    "dpo",
    "kto",
    "mallowspo",
    "madpo",
    "simpo",
    "tdpo",
    "tr_dpo",
    "wpo",
]
OF_THE_ISSUE = ["llama", "qwen2", "gpt2", "gemma2", "bitnet"]
CASES = [
    *(("llama", name) for name in METHODS),
    *((kind, name) for kind in OF_THE_ISSUE[1:] for name in READERS),
    *((kind, name) for kind in MODELS if kind not in OF_THE_ISSUE for name in ("dpo", "tdpo")),
]
REST = [(k, n) for k in OF_THE_ISSUE for n in METHODS if (k, n) not in CASES]


@dataclass(frozen=True)
class Place:
    """A model, a reference that it has left, what stages wrote of that, and room for runs."""

    model: Any
    reference: Any
    inputs: Mapping[str, Path]
    folder: Path

    def find(self, name: str, engine: str, optimisation: Any = OPTIMISATION) -> Found:
        scratch = self.folder / "-".join([name, engine, str(optimisation.epsilon)])
        scratch.mkdir()
        how = {"oracle": oracle, **FAST}[engine]
        run = run_of(name, how, deepcopy(self.model), self.reference, self.inputs)
        return find(run, scratch, optimisation)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Place]:
    """Architecture to what its runs share."""

    def made(architecture: str, model: Any = None) -> Place:
        model = MODELS[architecture]() if model is None else model
        reference, folder = near(model), tmp_path_factory.mktemp("place")
        return Place(model, reference, write_caches(folder, every_shape(), reference), folder)

    return cache(made)


SORTS = ("aot_unpaired",)
"""Methods that pair answers by rank: two that are equal but for rounding may change places."""


def assert_same(fast: Found, plain: Found, *, sorts: bool = False) -> None:
    """All that is compared, to 1e-5.

    Log-probs and losses are relative where they are above 1; gradients are so to the largest of
    the model, and each parameter's by itself, which a small one needs; weights are not.
    """
    assert seen_apart(fast.seen, plain.seen) <= TOLERANCE
    most = max(1.0, float(plain.losses.abs().max()))
    losses = [found.losses.sort().values if sorts else found.losses for found in (fast, plain)]
    assert float((losses[0] - losses[1]).abs().max()) <= TOLERANCE * most
    assert furthest(fast.gradients, plain.gradients) <= TOLERANCE * largest(plain.gradients)
    for name, gradient in plain.gradients.items():
        small = 0.1 * TOLERANCE * largest(plain.gradients) * gradient.numel() ** 0.5
        apart = float((fast.gradients[name] - gradient).norm())
        assert apart <= 2 * TOLERANCE * float(gradient.norm()) + small, name
    assert furthest(fast.after, plain.after) <= TOLERANCE


def assert_all_agree(where: Place, name: str) -> None:
    plain = where.find(name, "oracle")
    assert largest(plain.gradients) > 1e-4, "nothing to compare"
    assert furthest(plain.before, plain.after) > 100 * TOLERANCE, "nothing has moved"
    for engine in FAST:
        assert_same(where.find(name, engine), plain, sorts=name in SORTS)


@pytest.mark.parametrize(("architecture", "name"), CASES)
def test_every_engine_trains_as_the_oracle_does(
    architecture: str, name: str, place: Callable[[str], Place]
) -> None:
    """Log-probs, losses, the gradient, and every weight after five steps of AdamW.

    AdamW divides a gradient by its own size, so that one that is zero but for rounding would move
    its weight by the whole learning rate, this way or that (the biases of GPT-2's keys are such).
    An epsilon as large as the learning rate keeps that from happening: a step moves no weight by
    more than the gradient itself, and noise of 1e-6 stays noise. The usual epsilon has a test of
    its own, which looks at log-probs.
    """
    assert_all_agree(place(architecture), name)


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "name"), REST)
def test_every_engine_trains_as_the_oracle_does_with_any_method(
    architecture: str, name: str, place: Callable[[str], Place]
) -> None:
    assert_all_agree(place(architecture), name)


@pytest.mark.parametrize("name", ["dpo", "tdpo", "kto"])
@pytest.mark.parametrize("source", ["stories260k-llama", "bitllama2-tinystories-1m"])
def test_every_engine_trains_a_trained_model_as_the_oracle_does(
    source: str, name: str, place: Any, shared: Path
) -> None:
    model = without_dropout(load_policy(shared / "models" / source)[0])
    assert_all_agree(place(source, model), name)


@pytest.mark.parametrize("architecture", OF_THE_ISSUE)
def test_the_policy_is_the_same_after_five_steps_with_the_usual_epsilon(
    architecture: str, place: Callable[[str], Place]
) -> None:
    """By what it says, not by its weights: those that matter to nothing may go either way."""
    where, usual = place(architecture), replace(OPTIMISATION, epsilon=1e-8, learning_rate=1e-3)

    def after(engine: str) -> Any:
        model = deepcopy(where.model)
        model.load_state_dict(where.find("simpo", engine, usual).after, strict=False)
        with torch.no_grad():
            return run_of("simpo", oracle, model, where.reference, where.inputs).see(range(8))

    with torch.no_grad():
        start = run_of("simpo", oracle, where.model, where.reference, where.inputs).see(range(8))
    plain = after("oracle")
    assert seen_apart(plain, start) > 0.5
    for engine in FAST:
        assert seen_apart(after(engine), plain) < 1e-3
