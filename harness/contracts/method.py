"""The contract of a method: a pure function from log-probs to one loss per pair."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, get_args, get_type_hints

from torch import Tensor

from harness.contracts.settings import Setting, checked, within
from harness.errors import RequestError, unknown

State: TypeAlias = Mapping[str, Tensor]
"""What a method remembers from step to step: named tensors of fixed shape, fp64. It goes in and
comes out."""

Direction: TypeAlias = Literal["everywhere", "at_reference", "unclaimed"]
"""Where the gradient never makes a chosen token less likely or a rejected one likelier."""

Settings: TypeAlias = Mapping[str, Any]

READS: Mapping[str, str] = {
    "policy": "per-token log-probs of the policy that is being trained",
    "reference": "per-token log-probs of the reference policy; frozen, unless the method moves it",
    "margin": "reward of the chosen minus reward of the rejected, by the reward model, [pairs]",
    "rewards": "a pair of tensors [pairs]: reward of the chosen and of the rejected answer",
    "divergence": "per-token KL in nats over the whole vocabulary, reference to policy; it carries"
    " a gradient",
    "mismatched": "a pair of tensors [pairs], in nats: log-ratio of policy to reference of another"
    " prompt's chosen and rejected answer after this prompt; no gradient",
    "confidence": "per-token log of the policy's summed squared probabilities; no gradient",
    "entropy": "per-token entropy of the reference policy as a share of log(vocabulary), 0 to 1",
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
        parameters: its positional parameters, from the vocabulary `READS`.
        reads: those of them that are computed for it; see `only_for`.
        defaults: its keyword parameters, with the paper's defaults.
        source: paper and equation, or repository, file and commit.
        summary: the first line of its docstring.
        formula: the loss of one pair, in the letters of docs/methods.md.
        grid: values worth trying, per setting.
        bounds: the interval in which a setting must lie, as in "(0, 1]"; see `settings.within`.
        status: how sure the source is: verified, derived or unknown.
        disagreements: sentences on where sources differ, and which of them this follows.
        coupled: a pair's loss depends on the other pairs of the step. Like `direction` and
            `at_reference` it may be a function of the settings.
        initial: the state before the first step, for a method that reads `state`: a number, or
            as many as a vector has places.
        at_reference: exact loss when the policy equals the reference, where there is one; of
            coupled losses their mean over the step.
        stop_gradient: what the loss holds constant though it is made of the policy; "" if nothing.
        direction: where the gradient never makes a chosen token less likely or a rejected one
            likelier: "everywhere", "at_reference" alone, or "unclaimed".
        only_for: inputs and settings that only some values of other settings need, as in
            `{"reference": {"form": ("dpo", "ipo")}}`: one of these values is enough. For any other
            an input is neither computed nor billed, and the function receives None; a setting is
            refused if it is not left at its default.
        moving_reference: names of two settings, `(mix, every)`: after each `every` steps the
            engine moves the reference's weights to mix * policy + (1 - mix) * reference.
    """

    name: str
    loss: Callable[..., Any]
    parameters: tuple[str, ...]
    reads: tuple[str, ...]
    defaults: Mapping[str, Setting]
    source: str
    summary: str
    formula: str = ""
    grid: Mapping[str, tuple[Setting, ...]] = field(default_factory=dict)
    bounds: Mapping[str, str] = field(default_factory=dict)
    status: Literal["verified", "derived", "unknown"] = "verified"
    disagreements: tuple[str, ...] = ()
    coupled: bool | Callable[[Settings], bool] = False
    initial: Mapping[str, float | tuple[float, ...]] | None = None
    at_reference: float | Callable[[Settings], float | None] | None = None
    stop_gradient: str = ""
    direction: Direction | Callable[[Settings], Direction] = "everywhere"
    only_for: Mapping[str, Mapping[str, tuple[Setting, ...]]] = field(default_factory=dict)
    moving_reference: tuple[str, str] | None = None

    @property
    def whole_step(self) -> bool:
        """Whether a step may not be split: coupled losses, or a memory that moves once a step."""
        return bool(self.coupled or {"state", "rng"} & set(self.reads))

    @property
    def file(self) -> str:
        """Where the function stands, for messages."""
        return inspect.getsourcefile(self.loss) or "unknown file"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the loss function itself."""
        return self.loss(*args, **kwargs)

    def resolve(self, settings: Mapping[str, Any] | None = None) -> dict[str, Setting]:
        """All settings, the given ones over the defaults.

        Raises:
            RequestError: a setting does not exist, has the wrong type, is out of bounds, or would
                have no effect.
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
        for key, value in resolved.items():
            if value != self.defaults[key] and not self.uses(key, resolved):
                needs = " or ".join(
                    f"{other}={value}"
                    for other, values in self.only_for[key].items()
                    for value in values
                )
                raise RequestError(f"'{self.name}.{key}' has no effect here: it needs {needs}")
        return resolved

    def uses(self, name: str, settings: Settings) -> bool:
        """Whether an input or a setting has a part in the loss, for all settings resolved."""
        needed = self.only_for.get(name)
        return needed is None or any(settings[key] in values for key, values in needed.items())

    def narrowed(self, settings: Mapping[str, Any] | None = None) -> Method:
        """The method as these settings leave it: what it reads, and what holds of its loss.

        Raises:
            RequestError: as in `resolve`.
        """
        resolved = self.resolve(settings)
        reads = tuple(name for name in self.parameters if self.uses(name, resolved))
        known = {
            name: value(resolved) if callable(value) else value
            for name in ("coupled", "at_reference", "direction")
            for value in (getattr(self, name),)
        }
        initial = self.initial if "state" in reads else None
        return replace(self, reads=reads, initial=initial, **known)

    def losses(self, settings: Mapping[str, Any] | None = None, **inputs: Any) -> Any:
        """Evaluate on given inputs without any model: losses [pairs], or (losses, next state).

        Raises:
            RequestError: an input is missing or is one that the method does not read.
        """
        resolved = self.resolve(settings)
        reads = [name for name in self.parameters if self.uses(name, resolved)]
        if extra := set(inputs) - set(self.parameters):
            raise unknown(f"input of method '{self.name}'", min(extra), self.parameters)
        if missing := [name for name in reads if name not in inputs]:
            raise RequestError(f"method '{self.name}' reads {', '.join(missing)}: not given")
        given = (inputs[name] if name in reads else None for name in self.parameters)
        return self.loss(*given, **resolved)


def method(*, source: str, **described: Any) -> Callable[[Callable[..., Any]], Method]:
    """Describe a loss function; registers nothing.

    Args:
        source: paper and equation, or repository, file and commit.
        described: any of `formula`, `grid`, `bounds`, `status`, `disagreements`, `coupled`,
            `initial`, `at_reference`, `stop_gradient`, `direction`, `only_for` and
            `moving_reference`, as in `Method`.

    Raises:
        RequestError: the function, its defaults or what is said of it break the contract.
    """
    if odd := set(described) - DESCRIBED:
        raise unknown("argument of @method", min(odd), DESCRIBED)

    def describe(loss: Callable[..., Any]) -> Method:
        name = str(getattr(loss, "__name__", loss))
        parameters, defaults = _signature(name, loss)
        summary = (inspect.getdoc(loss) or "").split("\n", 1)[0]
        made = Method(name, loss, parameters, parameters, defaults, source, summary, **described)
        _check(made)
        # In the declared type: 2 and 2.0 must not become two cells.
        made = replace(made, defaults=made.resolve(defaults))
        return replace(made, reads=made.narrowed().reads)

    return describe


DESCRIBED = frozenset(Method.__dataclass_fields__) - {
    "name", "loss", "parameters", "reads", "defaults", "source", "summary",
}  # fmt: skip


def _check(made: Method) -> None:
    """What is said of a method must be about settings and inputs that it has."""
    name = made.name
    for what, (right, wanted) in _KINDS.items():
        if not right(getattr(made, what)):
            raise RequestError(
                f"method '{name}': {what} must be {wanted}, not {getattr(made, what)!r}"
            )
    if ("state" in made.parameters) != (made.initial is not None):
        raise RequestError(f"method '{name}': reading `state` and naming `initial` go together")
    if made.moving_reference and "reference" not in made.parameters:
        raise RequestError(f"method '{name}' moves a reference that it does not read")
    inputs = [made.only_for[name] for name in made.only_for if name in made.parameters]
    governing = {key for needed in made.only_for.values() for key in needed}
    _known(name, "setting", {*made.grid, *made.bounds, *governing, *(made.moving_reference or ())},
           made.defaults)  # fmt: skip
    _known(name, "input or setting", made.only_for, {*made.parameters, *made.defaults})
    if both := {key for needed in inputs for key in needed} & set(made.grid):
        # Trials share their inputs, so a trial must not change what is read.
        raise RequestError(f"method '{name}': '{min(both)}' changes what it reads: no grid")
    types = get_type_hints(made.loss)
    for key, value in [(key, value) for key, values in made.grid.items() for value in values]:
        checked(f"{name}.{key}", value, types.get(key))
        if key in made.bounds:
            within(f"{name}.{key}", value, made.bounds[key])


def _strings(value: Any) -> bool:
    return isinstance(value, tuple) and all(isinstance(one, str) for one in value)


def _mapping(value: Any, kind: type) -> bool:
    return isinstance(value, Mapping) and all(isinstance(one, kind) for one in value.values())


def _finite(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return value is None or callable(value) or (number and math.isfinite(value))


_KINDS: Mapping[str, tuple[Callable[[Any], bool], str]] = {
    "source": (lambda v: isinstance(v, str), "words: paper and equation, or file and commit"),
    "formula": (lambda v: isinstance(v, str), "words: the loss of one pair"),
    "stop_gradient": (lambda v: isinstance(v, str), "words that say what is held constant"),
    "disagreements": (_strings, "a tuple of sentences"),
    "status": (("verified", "derived", "unknown").__contains__, "verified, derived or unknown"),
    "grid": (lambda v: _mapping(v, tuple), "a tuple of values for each setting that it names"),
    "bounds": (lambda v: _mapping(v, str), 'an interval such as "(0, 1]" for each setting'),
    "only_for": (lambda v: _mapping(v, Mapping), 'such as {"reference": {"form": ("dpo",)}}'),
    "coupled": (lambda v: callable(v) or isinstance(v, bool), "true, false or a function"),
    "direction": (lambda v: callable(v) or v in get_args(Direction), "one of its three words"),
    "at_reference": (_finite, "a finite number, or a function of the settings"),
    "moving_reference": (
        lambda v: v is None or (_strings(v) and len(v) == 2), "the names of two settings"
    ),
}  # fmt: skip


def _known(name: str, what: str, described: Iterable[str], known: Collection[str]) -> None:
    if odd := set(described) - set(known):
        raise unknown(f"{what} that '{name}' describes", min(odd), known)


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
