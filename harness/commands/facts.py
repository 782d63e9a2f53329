"""What a plug-in's signature, docstring and decorator say, in words: for a terminal and a page."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from harness.contracts.method import READS, Method
from harness.contracts.settings import Setting
from harness.contracts.task import TaskPlugin

LETTERS: Mapping[str, str] = {
    "s_w, s_l": "log-prob of the answer under the policy, summed over response tokens, in nats",
    "r_w, r_l": "log-prob of the answer under the reference, summed likewise",
    "L_w, L_l": "number of response tokens",
    "h_w, h_l": "log-ratio, h = s - r",
    "a_w, a_l": "mean log-prob per token, a = s / L",
    "u": "a_w - a_l",
    "sg[.]": "held constant: no gradient passes",
}
"""Of the formulas; w is the chosen answer, l the rejected one."""

CONFIDENCE: Mapping[str, str] = {
    "verified": "the equation or the code that runs was read at the source",
    "derived": "reconstructed where the source is silent, ambiguous or was not at hand",
    "unknown": "no source was found",
}
DIRECTION: Mapping[str, str] = {
    "everywhere": "everywhere the gradient makes chosen tokens likelier and rejected ones less so",
    "at_reference": "at the reference the gradient widens the gap; elsewhere it can make chosen"
    " tokens less likely or rejected ones likelier",
    "unclaimed": "not claimed: even at the reference the gradient can narrow the gap",
}

COUPLED: Mapping[bool, str] = {
    True: "yes; a pair's loss depends on the other pairs of its step",
    False: "no; a pair's loss is its own",
}


@dataclass(frozen=True)
class Docstring:
    """A docstring in Google's form, taken apart.

    Attributes:
        paragraphs: the prose, each paragraph on one line.
        arguments: what is said of each argument.
        returns: what is said of the result, or "".
    """

    paragraphs: Sequence[str]
    arguments: Mapping[str, str]
    returns: str


@dataclass(frozen=True)
class SettingFacts:
    """One setting in words; what is not known is ""."""

    name: str
    default: str
    allowed: str
    tried: str
    meaning: str


def docstring(function: Callable[..., Any]) -> Docstring:
    """Take a function's docstring apart."""
    text = inspect.getdoc(function) or ""
    prose, *sections = re.split(r"^(Args|Returns|Raises):\n", text, flags=re.MULTILINE)
    named = dict(zip(sections[::2], map(textwrap.dedent, sections[1::2]), strict=True))
    # An argument begins at the margin of its section, what goes on about it is indented.
    items = re.findall(r"^(\w+): (.*(?:\n +.*)*)", named.get("Args", ""), flags=re.MULTILINE)
    return Docstring(
        [_line(part) for part in re.split(r"\n\s*\n", prose) if part.strip()],
        {name: _line(said) for name, said in items},
        _line(named.get("Returns", "")),
    )


def letters(formula: str) -> dict[str, str]:
    """Those of `LETTERS` that a formula uses."""
    used = set(re.findall(r"[A-Za-z_]+", formula))
    return {k: v for k, v in LETTERS.items() if used & set(re.findall(r"[A-Za-z_]+", k))}


def reads(method: Method) -> dict[str, str]:
    """Each input with what it is, and for which settings it is read if not for all."""
    return {name: READS[name] + _condition(method, name) for name in method.parameters}


def settings(plugin: Method | TaskPlugin) -> list[SettingFacts]:
    """Each setting with its default, and what else is known of it."""
    function = plugin.loss if isinstance(plugin, Method) else plugin.build
    bounds, grid = (plugin.bounds, plugin.grid) if isinstance(plugin, Method) else ({}, {})
    types, said = get_type_hints(function), docstring(function).arguments
    return [
        SettingFacts(
            name, word(default), _allowed(bounds.get(name), types.get(name))
            + (_condition(plugin, name) if isinstance(plugin, Method) else ""),
            ", ".join(map(word, grid.get(name, ()))), said.get(name, ""),
        )
        for name, default in plugin.defaults.items()
    ]  # fmt: skip


def facts(method: Method) -> dict[str, str]:
    """What the decorator says of the loss, each a phrase."""
    found = {
        "source": method.source,
        "confidence": f"{method.status}; {CONFIDENCE[method.status]}",
        "coupled": _varying(method, "coupled", COUPLED),
        "state": _state(method),
        "stop-gradient": method.stop_gradient or "none of its own",
        "direction": _varying(method, "direction", DIRECTION),
        "at reference": _at_reference(method),
    }  # fmt: skip
    if "reference" in method.parameters:
        found["moving reference"] = _moving(method)
    return found


def _varying(method: Method, name: str, words: Mapping[Any, str]) -> str:
    """What holds at the defaults, and whether it holds for all settings."""
    varies = callable(getattr(method, name))
    return words[getattr(method.narrowed(), name)] + "; it depends on settings" * varies


def word(value: Setting) -> str:
    """A setting's value, short: numbers to six digits, the rest as a configuration writes it."""
    if isinstance(value, float) and not value.is_integer():
        return min(repr(value), f"{value:.6g}", key=len)
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)


def one_of(words: Iterable[str]) -> str:
    """`a`, `a or b`, `a, b or c`."""
    *most, last = words
    return f"{', '.join(most)} or {last}" if most else last


def _condition(method: Method, name: str) -> str:
    """For which settings an input or a setting has a part, and whether at the defaults."""
    if name not in method.only_for:
        return ""
    needed = [f"{key} {one_of(map(word, v))}" for key, v in method.only_for[name].items()]
    default = "" if method.uses(name, method.defaults) else "; not at the defaults"
    return f"; only for {', or '.join(needed)}{default}"


def _allowed(bound: str | None, kind: Any) -> str:
    if bound is not None:
        return f"in {bound}" + " or none" * (type(None) in get_args(kind))
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(word, get_args(kind)))
    return "true or false" if kind is bool else ""


def _state(method: Method) -> str:
    if method.initial is None:
        return "none"
    begin = [f"{name} {_place(value)}" for name, value in method.initial.items()]
    return f"{', '.join(begin)} before the first step"


def _place(value: float | tuple[float, ...]) -> str:
    if not isinstance(value, tuple):
        return f"{value:g}"
    return f"{' and '.join(sorted({f'{v:g}' for v in value}))} in {len(value)} places"


def _at_reference(method: Method) -> str:
    """The loss where policy and reference are equal, at the defaults."""
    value = method.narrowed().at_reference
    assert not callable(value)
    varies = callable(method.at_reference)
    if value is None:
        return "no fixed loss" + " at the defaults; one at some settings" * varies
    return f"loss {value:.6g}" + " at the defaults; it depends on settings" * varies


def _moving(method: Method) -> str:
    if method.moving_reference is None:
        return "no"
    mix, every = method.moving_reference
    return (
        f"yes; after each {every} = {word(method.defaults[every])} steps it becomes {mix} * policy"
        f" + (1 - {mix}) * reference in its weights, with {mix} = {word(method.defaults[mix])}"
    )


def _line(text: str) -> str:
    return " ".join(text.split())
