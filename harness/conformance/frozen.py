"""Calls of a loss in which everything that it cuts out of the graph keeps its first value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor
from torch.overrides import TorchFunctionMode


class Cuts(TorchFunctionMode):
    """Keep what an operation makes of values with a gradient and gives back without one.

    `detach`, anything under `no_grad`, comparisons and Python numbers are such operations. The
    calls of the first evaluation are recorded; the later ones get the recorded results, in order,
    whatever the inputs are by then. The differences of the loss are then those of the loss with
    its stop-gradients held constant, and must be its gradient.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kept: list[Any] = []
        self._replay: Iterator[Any] | None = None

    def again(self) -> Cuts:
        """The next evaluation, and each after it that begins with this call, is a replay."""
        self._replay = iter(self._kept)
        return self

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Run the operation; record or replace its result where it is a cut."""
        found = func(*args, **(kwargs or {}))
        if not (_carries([*args, *(kwargs or {}).values()]) and _is_cut(found)):
            return found
        if self._replay is None:
            self._kept.append(_copy(found))
            return found
        kept = next(self._replay, None)
        return _copy(kept) if kept is not None else found


def _carries(values: Any) -> bool:
    for value in values:
        if isinstance(value, Tensor) and value.requires_grad:
            return True
        if isinstance(value, list | tuple) and _carries(value):
            return True
    return False


def _is_cut(found: Any) -> bool:
    if isinstance(found, Tensor):
        return not found.requires_grad
    return isinstance(found, float | int | bool | list) and not _carries([found])


def _copy(found: Any) -> Any:
    return found.clone() if isinstance(found, Tensor) else found
