"""How a language model is asked to compare two answers: a TOML file, filled in literally."""

from __future__ import annotations

import hashlib
import json
import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from harness.contracts.judge import Versus
from harness.errors import RequestError, unknown

Messages = list[dict[str, str]]

_PLACEHOLDER = re.compile(r"\{([a-z_]+)\}")
_TEXTS = ("prompt", "first", "second")
_FENCE_DIGITS = 8
_FOLDER = resources.files("harness.judge.asking.templates")
_KEYS = {
    "about": str, "form": str, "max_tokens": int, "system": str, "user": str, "labels": dict,
    "unfenced": bool,
}  # fmt: skip


@dataclass(frozen=True)
class Template:
    """A question, and what its answers mean.

    Attributes:
        name: under which it is asked for.
        form: "token": the whole answer is a label; "grade": one label stands somewhere in it.
        labels: what a judge can answer, and the preference for the first answer that it means.
        max_tokens: of an answer that is read as text.
        system: the system message; empty: none is sent.
        user: the user's message, with its placeholders.
    """

    name: str
    form: Literal["token", "grade"]
    labels: Mapping[str, float]
    max_tokens: int
    system: str
    user: str

    @property
    def digest(self) -> str:
        """Equal for templates that ask the same and read it alike, 16 hexadecimal digits."""
        parts = [self.form, dict(self.labels), self.max_tokens, self.system, self.user]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def sides(self) -> tuple[str, str] | None:
        """The labels of the first and of the second answer, where log-probs can be read."""
        by_value = {value: label for label, value in self.labels.items()}
        both = self.form == "token" and len(self.labels) == 2 and set(by_value) == {0.0, 1.0}
        return (by_value[1.0], by_value[0.0]) if both else None

    def messages(self, versus: Versus) -> Messages:
        """What is sent. Placeholders are replaced once: what an answer holds is never replaced."""
        texts = {name: sendable(getattr(versus, name)) for name in _TEXTS}
        texts["fence"] = fence(*texts.values())
        roles = (("system", self.system), ("user", self.user))
        return [
            {"role": role, "content": _PLACEHOLDER.sub(lambda match: texts[match[1]], text)}
            for role, text in roles
            if text
        ]


def fence(*texts: str) -> str:
    """A word that occurs in none of the texts: no text can end the block that it stands in.

    Swapping the answers does not change it, for only the prompt is hashed.
    """
    seed, count = texts[0] if texts else "", 0
    while True:
        word = hashlib.sha256(f"{count} {seed}".encode()).hexdigest()[:_FENCE_DIGITS]
        if not any(word in text for text in texts):
            return word
        count += 1


def sendable(text: str) -> str:
    """The text without lone surrogates, which no request can carry."""
    return text.encode("utf-8", "replace").decode("utf-8")


def builtin_templates() -> list[str]:
    """The names of the templates that come with the harness."""
    return sorted(f.name.removesuffix(".toml") for f in _FOLDER.iterdir() if f.name[-5:] == ".toml")


def load_template(source: str) -> Template:
    """The template of a name, or of a path to a file.

    Raises:
        RequestError: there is none, or it does not hold what a template must.
    """
    if "/" in source or source.endswith(".toml"):
        return _read(Path(source).expanduser().stem, source, _file(source))
    if source not in builtin_templates():
        raise unknown("judge template", source, builtin_templates())
    text = (_FOLDER / f"{source}.toml").read_text("utf-8")
    return _read(source, source, text)


def _file(source: str) -> str:
    try:
        return Path(source).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        names = ", ".join(builtin_templates())
        raise RequestError(
            f"judge template {source}: cannot be read ({error}); give a TOML file or one of {names}"
        ) from error


def _read(name: str, source: str, text: str) -> Template:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"judge template {source}: not TOML: {error}") from error
    problem = _problem(table)
    if problem:
        raise RequestError(f"judge template {source}: {problem}")
    labels = {label: float(value) for label, value in table["labels"].items()}
    return Template(
        name, table["form"], labels, table["max_tokens"], table.get("system", ""),
        table["user"].strip("\n"),
    )  # fmt: skip


def _problem(table: Mapping[str, Any]) -> str | None:
    """Why this is no template; None where it is one."""
    if foreign := sorted(table.keys() - _KEYS):
        return str(unknown("key", foreign[0], _KEYS))
    for key, kind in _KEYS.items():
        if key in table and type(table[key]) is not kind:
            return f"'{key}' must be of type {kind.__name__}"
    if missing := [key for key in ("form", "max_tokens", "user", "labels") if key not in table]:
        return f"'{missing[0]}' is missing"
    if table["form"] not in ("token", "grade"):
        return '\'form\' must be "token" or "grade"'
    if table["max_tokens"] < 1:
        return "'max_tokens' must be at least 1"
    return _problem_of_text(table) or _problem_of_labels(table["labels"])


def _problem_of_text(table: Mapping[str, Any]) -> str | None:
    found = set(_PLACEHOLDER.findall(table["user"] + table.get("system", "")))
    if foreign := sorted(found - {*_TEXTS, "fence"}):
        return f"unknown placeholder {{{foreign[0]}}}; known: {{prompt}}, {{first}}, {{second}}"
    if missing := [name for name in _TEXTS if name not in found]:
        return f"the placeholder {{{missing[0]}}} is missing"
    if "fence" not in found and not table.get("unfenced"):
        return (
            "{fence} is missing: put it where blocks of text begin and end, so that no answer can "
            "end its own block (or say `unfenced = true`)"
        )
    return None


def _problem_of_labels(labels: Mapping[str, Any]) -> str | None:
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in labels.values()):
        return "a label's preference must be a number"
    if not all(math.isfinite(value) and 0 <= value <= 1 for value in labels.values()):
        return "a label's preference must be from 0 to 1"
    if not {0.0, 1.0} <= {float(value) for value in labels.values()}:
        return "one label must mean 1 (the first answer is better) and one 0 (the second is)"
    if any(label != label.strip() or not label for label in labels):
        return "a label must not begin or end with a space"
    return None
