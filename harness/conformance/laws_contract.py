"""Laws of the contract: what a method says of itself, what it returns, and that it is pure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from harness.conformance.alternatives import forms
from harness.conformance.cases import Case, at_reference, cast, draw, padded, renumbered
from harness.conformance.compare import differ, distance, same_bits
from harness.conformance.findings import BrokenError, SkipError, shown
from harness.conformance.subject import Subject
from harness.contracts.logprobs import PairLogProbs
from harness.contracts.method import Direction, Method, State
from harness.errors import RequestError

STATUS = ("verified", "derived", "unknown")


def described(subject: Subject) -> None:
    """A docstring, a source, and words that mean something."""
    method = subject.whole
    facts = {
        "a docstring with a first line that says what comes out": method.summary,
        "a source: paper and equation, or repository, file and commit": method.source.strip(),
        f"a status out of {', '.join(STATUS)}": method.status in STATUS,
        f"a direction out of {', '.join(get_args(Direction))}": subject.method.direction
        in get_args(Direction),
    }
    for expected, there in facts.items():
        if not there:
            raise BrokenError(f"{expected} ({method.file})", "none")


def shape(subject: Subject) -> None:
    """One floating number per pair, for any number of pairs, in the precision of the inputs."""
    for pairs in (6, 1, 2, 5):
        for dtype in (torch.float64, torch.float32):
            losses = subject(cast(draw(pairs, seed=pairs), dtype, dtype)).losses
            if losses.shape != (pairs,) or losses.dtype != dtype:
                raise BrokenError(
                    f"one loss per pair: shape [{pairs}] and {dtype} for {pairs} pairs of {dtype}",
                    f"shape {list(losses.shape)} and {losses.dtype}",
                )


def inputs_untouched(subject: Subject) -> None:
    """No tensor and no mapping that was given is changed."""
    for drawn in (draw(5, 20), at_reference(draw(5, 21))):
        for case in subject.at_any_time(drawn):
            given = subject.inputs(case)
            tensors = dict(_tensors(given))
            before = {name: (t, t.clone(), t._version) for name, t in tensors.items()}
            keys = list(given.get("state", {}))
            subject.raw(given)
            for name, (tensor, clone, version) in before.items():
                if tensor._version != version or not same_bits(tensor, clone):
                    raise BrokenError(
                        f"`{name}` as it was before the call", _changed(clone, tensor)
                    )
            after = dict(_tensors(given))
            if keys != list(given.get("state", {})) or any(
                after[name] is not tensor for name, tensor in tensors.items()
            ):
                raise BrokenError("the mapping `state` as it was before the call",
                                  "another: make a new one and return it")  # fmt: skip


def _changed(before: Tensor, after: Tensor) -> str:
    return f"{shown(before)} became {shown(after)}: it was changed in place"


def _tensors(given: dict[str, Any]) -> Iterator[tuple[str, Tensor]]:
    for name, value in given.items():
        if isinstance(value, PairLogProbs):
            for side in ("chosen", "rejected"):
                yield f"{name}.{side}.values", getattr(value, side).values
                yield f"{name}.{side}.mask", getattr(value, side).mask
        elif isinstance(value, tuple):
            yield from ((f"{name}[{i}]", tensor) for i, tensor in enumerate(value))
        elif isinstance(value, dict):
            yield from ((f'{name}["{key}"]', tensor) for key, tensor in value.items())
        elif isinstance(value, Tensor):
            yield name, value


def repeatable(subject: Subject) -> None:
    """The same inputs give the same bits, whatever was computed or drawn in between."""
    for case in subject.at_any_time(draw(6, 30, apart=0.3)):
        first = subject(case)
        _same(first, subject(case), "the same call again")
        for other in (draw(4, 31, apart=1.0), renumbered(case, 32, range(case.pairs))):
            subject(replace(other, state=case.state))
        _same(first, subject(case), "the same call after calls with other inputs")
        _nothing_kept(subject, case)
        _seed_everything(33)
        before = _global_randomness()
        _same(first, subject(case), "the same call with the global random generators elsewhere")
        if _global_randomness() != before:
            raise BrokenError("random numbers from the input `rng` only",
                              "the state of a global random generator moved")  # fmt: skip


def _nothing_kept(subject: Subject, case: Case) -> None:
    """In a width that was never seen, other inputs first: what they leave must not be met."""
    wide = padded(case, (0, 17), (0, 17))
    subject(renumbered(wide, 34, range(case.pairs)))
    expected, found = subject(case).losses, subject(wide).losses
    if not distance(expected, found) <= 1e-6:
        raise BrokenError(
            f"losses that do not depend on earlier calls with inputs of the same shape: "
            f"{shown(expected)}",
            shown(found),
        )


def _same(first: Any, again: Any, when: str) -> None:
    pairs = [(first.losses, again.losses), *((first.state[k], again.state[k]) for k in first.state)]
    for one, other in pairs:
        if not same_bits(one, other):
            raise BrokenError(f"the same bits for {when}: {shown(one)}", shown(other))


def _seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    np.random.seed(seed)
    random.seed(seed)


def _global_randomness() -> tuple[Any, ...]:
    numpy_state: Any = np.random.get_state()
    drawn = (numpy_state[1].tolist(), numpy_state[2])
    return (torch.get_rng_state().tolist(), drawn, random.getstate())


def state(subject: Subject) -> None:
    """A memory keeps its names and shapes, is fp64 and cut off from the graph, and moves."""
    if subject.initial is None:
        raise SkipError("it reads no state")
    moved = False
    plain = draw(6, 40)
    narrow = [replace(cast(plain, kind, torch.float32), words=f"log-probs in {kind}")
              for kind in (torch.float32, torch.bfloat16)]  # fmt: skip
    for drawn in (plain, draw(6, 41, apart=0.7), draw(1, 42), at_reference(plain), *narrow):
        for case in subject.at_any_time(drawn):
            given = case.state or subject.initial
            after = subject.slopes(case).state
            _check_state(given, after, case)
            moved = moved or any(differ(given[name], after[name]) for name in given)
    if not moved:
        came = f"the one before it, always: {_told(subject.initial)}"
        raise BrokenError("a state that differs after a step of some inputs", came)


def _check_state(given: State, after: State, case: Case) -> None:
    if set(given) != set(after):
        raise BrokenError(f"the names of the state: {sorted(given)}", str(sorted(after)))
    for name, old in given.items():
        new = after[name]
        if not isinstance(new, Tensor) or new.dtype != torch.float64 or new.shape != old.shape:
            kind = f"{new.dtype} {list(new.shape)}" if isinstance(new, Tensor) else repr(new)
            raise BrokenError(f"`{name}` of the next state in fp64 and of shape {list(old.shape)}",
                              f"{kind}, {case.words}")  # fmt: skip
        if new.requires_grad:
            raise BrokenError(f"`{name}` of the next state cut off from the graph",
                              "a tensor that requires a gradient: detach it")  # fmt: skip
        if not bool(new.isfinite().all()):
            raise BrokenError(f"`{name}` of the next state finite", f"{shown(new)}, {case.words}")


def _told(state: State) -> str:
    return ", ".join(f"{name} {shown(value)}" for name, value in state.items())


def only_for(subject: Subject) -> None:
    """With settings that do not need an input, the loss is computed without it."""
    method = subject.whole
    if not method.only_for:
        raise SkipError("it needs all of its inputs under all settings")
    for name, needed in method.only_for.items():
        if not needed or not all(needed.values()):
            raise BrokenError(f"settings that need `{name}`", f"{dict(needed)}")
    for changes in [{}, *forms(method)]:
        _without(method, changes)


def _without(method: Method, changes: Any) -> None:
    try:
        subject = Subject.of(method, changes)
        missing = [name for name in method.parameters if name not in subject.reads]
        for drawn in (draw(5, 50), draw(5, 51, apart=0.7)):
            for case in subject.at_any_time(drawn):
                subject(case)
    except RequestError:
        return  # the method refuses these settings
    except Exception as error:
        if not missing:
            raise
        raise BrokenError(
            f"losses without `{', '.join(missing)}`, which `only_for` says is not needed with "
            f"{subject.words or 'the defaults'}",
            f"{type(error).__name__}: {error}",
        ) from error
