"""One call of a loss, and what the contract holds it to."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, TypeAlias

from torch import Tensor

from harness.contracts.logprobs import PairTokens
from harness.contracts.method import Method, State
from harness.errors import GateError
from harness.store.failures import is_memory

Seen: TypeAlias = Mapping[str, PairTokens]
"""What a loss reads of the model itself, by its names: `policy`, `confidence`, `divergence`."""


def evaluate(
    method: Method,
    settings: Mapping[str, Any],
    seen: Seen,
    given: Mapping[str, Any],
    state: State | None,
) -> tuple[Tensor, State | None]:
    """Losses [pairs] and the state after them, without a graph; what came in is not touched.

    Raises:
        GateError: the method raised an error; or it did not return one loss per pair, so that
            their mean is another; or not the state that it was given the form of; or it changed
            what it was given.
    """
    inputs = {**seen, **given}
    if "state" in method.narrowed(settings).reads:
        inputs["state"] = MappingProxyType(state or {})
    before = [tensor._version for tensor in _tensors(inputs.values())]
    found = _called(method, settings, inputs)
    if before != [tensor._version for tensor in _tensors(inputs.values())]:
        raise GateError(
            complaint(method, "it changed its inputs in place: a loss is a pure function")
        )
    losses, after = _apart(method, found, inputs.get("state"))
    pairs = len(seen["policy"].chosen.mask)
    if losses.shape != (pairs,) or not losses.is_floating_point():
        raise GateError(
            complaint(
                method,
                f"it returned losses of shape {list(losses.shape)}, {losses.dtype}, for {pairs} "
                "pairs: it must return one loss per pair",
            )
        )
    return losses, after


def _called(method: Method, settings: Mapping[str, Any], inputs: Mapping[str, Any]) -> Any:
    try:
        return method.losses(settings, **inputs)
    except Exception as error:  # foreign code may raise anything
        if is_memory(error):
            raise  # of this machine and this moment, not of the method
        lines = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == method.file]
        where = f" in line {lines[-1].lineno}" if lines else ""
        what = f"it raised {type(error).__name__}{where}: {error}"
        raise GateError(complaint(method, what)) from error


def _apart(method: Method, found: Any, state: State | None) -> tuple[Tensor, State | None]:
    """Losses and the next state; a memory must keep its names and shapes."""
    losses, after = found if isinstance(found, tuple) and len(found) == 2 else (found, None)
    if not isinstance(losses, Tensor) or (after is None) != (state is None):
        wanted = "one tensor of losses" if state is None else "(losses, next state)"
        raise GateError(complaint(method, f"it must return {wanted}, not {type(found).__name__}"))
    if state is None or after is None:
        return losses, None
    old, new = ({k: _form(v) for k, v in which.items()} for which in (state, after))
    if old != new:
        raise GateError(complaint(method, f"its next state is {new} where the state was {old}"))
    return losses, {name: value.detach() for name, value in after.items()}


def _form(value: Any) -> str:
    return f"{list(value.shape)}" if isinstance(value, Tensor) else type(value).__name__


def complaint(method: Method, what: str) -> str:
    """What is wrong with a method, with the file to mend it in."""
    return f"method '{method.name}' ({method.file}): {what}"


def _tensors(inputs: Iterable[Any]) -> Iterator[Tensor]:
    for value in inputs:
        if isinstance(value, PairTokens):
            yield from (value.chosen.values, value.chosen.mask)
            yield from (value.rejected.values, value.rejected.mask)
        elif isinstance(value, Tensor):
            yield value
        elif isinstance(value, tuple | Mapping):
            yield from _tensors(value.values() if isinstance(value, Mapping) else value)
