"""The contract of a method: a pure function from log-probs to one loss per pair."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_type_hints

from torch import Tensor

from harness.contracts.settings import Setting, checked, within
from harness.errors import RequestError, unknown

State: TypeAlias = Mapping[str, Tensor]
"""What a method remembers from step to step: named scalars, fp64. It goes in and comes out."""

READS: Mapping[str, str] = {
    "policy": "per-token log-probs of the policy that is being trained",
    "reference": "per-token log-probs of the frozen reference policy",
    "margin": "reward of the chosen minus reward of the rejected, by the reward model, [pairs]",
    "rewards": "a pair of tensors [pairs]: reward of the chosen and of the rejected answer",
    "state": "what the method returned as its next state in the step before",
    "rng": "a torch.Generator, a function of the run's seed and the step",
}
"""The closed vocabulary of what a loss may read."""


@dataclass(frozen=True)
class Method:
    """One preference loss, what it reads and what can be set; made by `@method`.

    Attributes:
        name: the function's name, the file's name and the name on the command line.
        loss: the function itself.
        reads: its positional parameters, from the vocabulary `READS`.
        defaults: its keyword parameters, with the paper's defaults.
        source: paper and equation, or repository, file and commit.
        summary: the first line of its docstring.
        grid: values worth trying, per setting.
        coupled: a pair's loss depends on the other pairs of the step.
        initial: the state before the first step, for a method that reads `state`.
        at_reference: exact loss when the policy equals the reference, where there is one.
        status: how sure the source is: verified, derived or unknown.
        bounds: the interval in which a setting must lie, as in "(0, 1]"; see `settings.within`.
    """

    name: str
    loss: Callable[..., Any]
    reads: tuple[str, ...]
    defaults: Mapping[str, Setting]
    source: str
    summary: str
    grid: Mapping[str, tuple[Setting, ...]] = field(default_factory=dict)
    coupled: bool = False
    initial: Mapping[str, float] | None = None
    at_reference: float | None = None
    status: Literal["verified", "derived", "unknown"] = "verified"
    bounds: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole_step(self) -> bool:
        """Whether a step may not be split: coupled losses, or a memory that moves once a step."""
        return self.coupled or bool({"state", "rng"} & set(self.reads))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the loss function itself."""
        return self.loss(*args, **kwargs)

    def resolve(self, settings: Mapping[str, Any] | None = None) -> dict[str, Setting]:
        """All settings, the given ones over the defaults.

        Raises:
            RequestError: a setting does not exist, has the wrong type or is out of bounds.
        """
        types = get_type_hints(self.loss)
        resolved = dict(self.defaults)
        for key, value in (settings or {}).items():
            if key not in self.defaults:
                raise unknown(f"setting of method '{self.name}'", key, self.defaults)
            where = f"{self.name}.{key}"
            resolved[key] = checked(where, value, types.get(key))
            if key in self.bounds:
                within(where, resolved[key], self.bounds[key])
        return resolved

    def losses(self, settings: Mapping[str, Any] | None = None, **inputs: Any) -> Any:
        """Evaluate on given inputs without any model: losses [pairs], or (losses, next state).

        Raises:
            RequestError: an input is missing or is one that the method does not read.
        """
        if extra := set(inputs) - set(self.reads):
            raise unknown(f"input of method '{self.name}'", min(extra), self.reads)
        if missing := [name for name in self.reads if name not in inputs]:
            raise RequestError(f"method '{self.name}' reads {', '.join(missing)}: not given")
        return self.loss(*(inputs[name] for name in self.reads), **self.resolve(settings))


def method(
    *,
    source: str,
    grid: Mapping[str, tuple[Setting, ...]] | None = None,
    coupled: bool = False,
    initial: Mapping[str, float] | None = None,
    at_reference: float | None = None,
    status: Literal["verified", "derived", "unknown"] = "verified",
    bounds: Mapping[str, str] | None = None,
) -> Callable[[Callable[..., Any]], Method]:
    """Describe a loss function; registers nothing. See `Method` for the arguments.

    Raises:
        RequestError: the function, its defaults or its grid break the contract.
    """

    def describe(loss: Callable[..., Any]) -> Method:
        name = str(getattr(loss, "__name__", loss))
        reads, defaults = _signature(name, loss)
        if ("state" in reads) != (initial is not None):
            raise RequestError(f"method '{name}': reading `state` and naming `initial` go together")
        for key in {**(grid or {}), **(bounds or {})}:
            if key not in defaults:
                raise unknown(f"setting in the grid or bounds of '{name}'", key, defaults)
        summary = (inspect.getdoc(loss) or "").split("\n", 1)[0]
        made = Method(
            name, loss, reads, defaults, source, summary, dict(grid or {}), coupled, initial,
            at_reference, status, dict(bounds or {}),
        )  # fmt: skip
        for key, values in made.grid.items():
            for value in values:
                made.resolve({key: value})
        # In the declared type: 2 and 2.0 must not become two cells.
        return replace(made, defaults=made.resolve(defaults))

    return describe


def _signature(name: str, loss: Callable[..., Any]) -> tuple[tuple[str, ...], dict[str, Setting]]:
    reads, defaults = [], {}
    for parameter in inspect.signature(loss).parameters.values():
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
            if parameter.name not in READS:
                raise unknown(f"input of method '{name}'", parameter.name, READS)
            reads.append(parameter.name)
        elif parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not parameter.empty:
            defaults[parameter.name] = parameter.default
        else:
            raise RequestError(
                f"method '{name}': '{parameter.name}' must be an input or a setting with a default"
            )
    if "policy" not in reads:
        raise RequestError(f"method '{name}' does not read `policy`: it would train nothing")
    return tuple(reads), defaults
