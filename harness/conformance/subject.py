"""What is checked: a method with its settings resolved, called as the engine would call it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor

from harness.conformance.cases import Case, at_reference, draw
from harness.conformance.findings import BrokenError
from harness.contracts.logprobs import LogProbs, PairTokens
from harness.contracts.method import Method, State
from harness.contracts.settings import Setting

Mode: TypeAlias = AbstractContextManager[Any]

LEAVES = ("policy", "divergence")
"""Inputs that carry a gradient."""


@dataclass(frozen=True)
class Outcome:
    """What a loss returned: one loss per pair, and the next state, empty where it reads none."""

    losses: Tensor
    state: State


@dataclass(frozen=True)
class Slopes:
    """Losses (detached), next state, and the gradients of a weighted sum of the losses.

    Attributes:
        by: gradients by the values of chosen and rejected answers, per leaf that is read.
    """

    losses: Tensor
    state: State
    by: Mapping[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Subject:
    """A method under some settings.

    Attributes:
        method: as the settings leave it.
        whole: as it was loaded.
        changes: settings that are not the defaults.
    """

    method: Method
    whole: Method
    changes: Mapping[str, Setting]

    @classmethod
    def of(cls, method: Method, changes: Mapping[str, Setting] | None = None) -> Subject:
        """The method under its defaults, or with some of them changed.

        Raises:
            RequestError: a setting does not exist or is out of bounds.
        """
        return cls(method.narrowed(changes), method, changes or {})

    @property
    def words(self) -> str:
        """The changed settings, for messages; "" at the defaults."""
        return ", ".join(f"{key}={value!r}" for key, value in self.changes.items())

    @property
    def reads(self) -> tuple[str, ...]:
        """Inputs that the loss reads under these settings."""
        return self.method.reads

    @cached_property
    def settings(self) -> Mapping[str, Setting]:
        """All settings, resolved."""
        return self.whole.resolve(self.changes)

    @property
    def drawing(self) -> bool:
        """Whether it draws random numbers."""
        return "rng" in self.reads

    @cached_property
    def initial(self) -> State | None:
        """The state before the first step; None for a method without one."""
        if self.method.initial is None:
            return None
        return {k: torch.tensor(v, dtype=torch.float64) for k, v in self.method.initial.items()}

    @cached_property
    def later(self) -> State | None:
        """The state after a few ordinary steps."""
        state = self.initial
        if state is not None:
            for seed in range(101, 105):
                found = self(replace(draw(6, seed, apart=0.3), state=state)).state
                state = {name: value.detach() for name, value in found.items()}
        return state

    @cached_property
    def stuck(self) -> State | None:
        """The state after a step in which nothing varied: the policy was the reference."""
        if self.initial is None:
            return None
        found = self(at_reference(draw(4, 105))).state
        return {name: value.detach() for name, value in found.items()}

    def at_any_time(self, case: Case) -> Iterator[Case]:
        """The case in the first step and, where there is a memory, in a later one."""
        yield case
        if self.initial is not None:
            yield replace(case, state=self.later, words=f"{case.words}, a later state")

    def inputs(self, case: Case) -> dict[str, Any]:
        """What the loss is given, by name; a new generator and a new mapping each time."""
        given = {name: case.inputs[name] for name in self.reads if name in case.inputs}
        if "state" in self.reads:
            given["state"] = dict(case.state or self.initial or {})
        if self.drawing:
            given["rng"] = torch.Generator().manual_seed(case.seed)
        return given

    def raw(self, given: Mapping[str, Any]) -> Any:
        """Whatever the function returns for these inputs."""
        return self.method.loss(
            *(given.get(name) for name in self.method.parameters), **self.settings
        )

    def __call__(self, case: Case, mode: Mode | None = None) -> Outcome:
        """Losses and next state; the function itself, and nothing else, runs under the mode.

        Raises:
            BrokenError: it did not return what the contract says.
        """
        given = self.inputs(case)
        with mode or nullcontext():
            found = self.raw(given)
        return self._apart(found)

    def on_leaves(self, case: Case) -> Case:
        """The case with inputs that ask for a gradient."""
        leaves = {name: _leaves(case.inputs[name]) for name in LEAVES if name in self.reads}
        return case.having("", **leaves)

    def slopes(self, case: Case, weights: Tensor | None = None, mode: Mode | None = None) -> Slopes:
        """Gradients of the sum of the losses, weighted per pair if so wanted.

        A loss without a graph has gradients of zero here; that is a check of its own.
        """
        there = self.on_leaves(case)
        leaves = {name: there.inputs[name] for name in LEAVES if name in self.reads}
        outcome = self(there, mode)
        losses = outcome.losses
        total = (losses if weights is None else losses * weights.to(losses)).sum()
        values = [s.values for pair in leaves.values() for s in (pair.chosen, pair.rejected)]
        if total.requires_grad:
            found = torch.autograd.grad(total, values, allow_unused=True, materialize_grads=True)
        else:
            found = tuple(torch.zeros_like(value) for value in values)
        by = {name: (found[2 * i], found[2 * i + 1]) for i, name in enumerate(leaves)}
        return Slopes(losses.detach(), outcome.state, by)

    def _apart(self, found: Any) -> Outcome:
        stateful = "state" in self.reads
        losses, state = found if _is_couple(found) and stateful else (found, {})
        wanted = "(losses, next state)" if stateful else "a tensor of losses"
        if not isinstance(losses, Tensor) or (stateful and not _is_couple(found)):
            raise BrokenError(f"{wanted}, as the method reads {', '.join(self.reads)}",
                              f"a value of type {_kind(found)}")  # fmt: skip
        if not isinstance(state, Mapping):
            raise BrokenError("a mapping of names to tensors as the next state", _kind(state))
        return Outcome(losses, state)


def _is_couple(found: Any) -> bool:
    return isinstance(found, tuple) and len(found) == 2


def _kind(found: Any) -> str:
    if isinstance(found, tuple):
        return f"tuple of {', '.join(type(part).__name__ for part in found) or 'nothing'}"
    return type(found).__name__


def _leaves(pair: PairTokens) -> PairTokens:
    return PairTokens(
        *(LogProbs(s.values.detach().clone().requires_grad_(), s.mask)
          for s in (pair.chosen, pair.rejected))
    )  # fmt: skip
