"""One call of a loss: what breaks the contract is refused with the plug-in, file and rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.contracts.logprobs import PairLogProbs
from harness.contracts.method import State, method
from harness.errors import GateError
from harness.train.evaluate import evaluate


def pair(count: int = 3) -> PairLogProbs:
    totals = -torch.arange(1.0, count + 1)
    return PairLogProbs.from_totals(totals, 2 * totals)


def call(loss: Callable[..., Any], state: State | None = None, **declared: Any) -> Any:
    made = method(source="for this test", **declared)(loss)
    given = {"reference": pair()} if "reference" in made.reads else {}
    return evaluate(made, {}, {"policy": pair()}, given, state)


def raises(policy: PairLogProbs) -> Tensor:
    """Broken."""
    raise ZeroDivisionError("by hand")


def misses(policy: PairLogProbs) -> Tensor:
    """An attribute that is not there."""
    return policy.choosen.total()  # type: ignore[attr-defined, no-any-return]


def scalar(policy: PairLogProbs) -> Tensor:
    """The mean already."""
    return policy.chosen.mean().mean()


def whole(policy: PairLogProbs) -> Tensor:
    """Integers have no gradient."""
    return policy.chosen.length.long()


def number(policy: PairLogProbs) -> Any:
    """No tensor."""
    return 0.5


def two(policy: PairLogProbs) -> Any:
    """A state that nobody asked for."""
    return policy.chosen.mean(), {"mean": torch.tensor(0.0)}


def in_place(policy: PairLogProbs) -> Tensor:
    """The mask is applied to what was given."""
    policy.chosen.values.mul_(policy.chosen.mask)
    return policy.chosen.mean()


def reference_in_place(policy: PairLogProbs, reference: PairLogProbs) -> Tensor:
    """Not the policy, and not seen in this step's losses."""
    losses = policy.chosen.mean() - reference.chosen.mean()
    reference.rejected.values.add_(1)
    return losses


@pytest.mark.parametrize(
    ("loss", "complaint"),
    [
        (raises, r"it raised ZeroDivisionError in line \d+: by hand"),
        (misses, r"it raised AttributeError in line \d+: .*choosen"),
        (scalar, r"losses of shape \[\], torch.float32, for 3 pairs: .* one loss per pair"),
        (whole, r"torch.int64, for 3 pairs"),
        (number, "it must return one tensor of losses, not float"),
        (two, "it must return one tensor of losses, not tuple"),
        (in_place, "it changed its inputs in place"),
        (reference_in_place, "it changed its inputs in place"),
    ],
)
def test_a_broken_loss_is_named_with_its_file(loss: Callable[..., Any], complaint: str) -> None:
    with pytest.raises(GateError, match=rf"method '{loss.__name__}' \(.*test_evaluate.py\): ") as e:
        call(loss)
    assert e.match(complaint)


def without_state(policy: PairLogProbs, state: State) -> Any:
    """Forgets its memory."""
    return policy.chosen.mean()


def other_names(policy: PairLogProbs, state: State) -> Any:
    """Renames it."""
    return policy.chosen.mean(), {"average": state["mean"]}


def grows(policy: PairLogProbs, state: State) -> Any:
    """Keeps every value it has seen."""
    return policy.chosen.mean(), {"mean": torch.cat([state["mean"], state["mean"]])}


def plain_number(policy: PairLogProbs, state: State) -> Any:
    """A number is no tensor, and no checkpoint holds it."""
    return policy.chosen.mean(), {"mean": 0.5}


def overwrites(policy: PairLogProbs, state: State) -> Any:
    """Writes into the mapping that it was given."""
    state["mean"] = state["mean"] + 1  # type: ignore[index]
    return policy.chosen.mean(), state


def adds_in_place(policy: PairLogProbs, state: State) -> Any:
    """Writes into the tensor that it was given."""
    state["mean"].add_(1)
    return policy.chosen.mean(), state


@pytest.mark.parametrize(
    ("loss", "complaint"),
    [
        (without_state, r"it must return \(losses, next state\), not Tensor"),
        (other_names, r"its next state is \{'average': '\[1\]'\} where the state was"),
        (grows, r"its next state is \{'mean': '\[2\]'\} where the state was \{'mean': '\[1\]'\}"),
        (plain_number, r"its next state is \{'mean': 'float'\}"),
        (overwrites, "TypeError"),
        (adds_in_place, "it changed its inputs in place"),
    ],
)
def test_a_memory_that_breaks_its_form_is_refused(loss: Callable[..., Any], complaint: str) -> None:
    with pytest.raises(GateError, match=complaint):
        call(loss, {"mean": torch.zeros(1, dtype=torch.float64)}, initial={"mean": (0.0,)})


def test_a_state_comes_back_without_a_graph() -> None:
    def remembers(policy: PairLogProbs, state: State) -> Any:
        """The next state hangs on the losses' graph."""
        losses = policy.chosen.mean()
        return losses, {"mean": losses.mean().double()}

    made = method(source="for this test", initial={"mean": 0.0})(remembers)
    leaf = torch.zeros(2, requires_grad=True)
    seen = {"policy": PairLogProbs.from_totals(leaf, leaf)}
    losses, after = evaluate(made, {}, seen, {}, {"mean": torch.zeros((), dtype=torch.float64)})
    assert losses.requires_grad
    assert after is not None
    assert not after["mean"].requires_grad


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate"),
    ],
)
def test_memory_that_runs_out_is_not_the_methods_fault(error: Exception) -> None:
    def hungry(policy: PairLogProbs) -> Tensor:
        """More than there is."""
        raise error

    with pytest.raises(type(error)):
        call(hungry)


def test_a_memory_that_these_settings_do_not_need_is_not_asked_for() -> None:
    def sometimes(policy: PairLogProbs, state: State | None, *, remember: bool = False) -> Any:
        """Remembers only if it is told to."""
        losses = policy.chosen.mean()
        return losses if state is None else (losses, state)

    made = method(
        source="for this test", initial={"mean": 0.0}, only_for={"state": {"remember": (True,)}}
    )(sometimes)
    mean = {"mean": torch.zeros((), dtype=torch.float64)}
    assert evaluate(made, {}, {"policy": pair()}, {}, mean)[1] is None
    assert evaluate(made, {"remember": True}, {"policy": pair()}, {}, mean)[1] == mean
