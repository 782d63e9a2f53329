"""One step of the pipeline, and the key that names what it makes.

Two stages with equal keys make equal results, so the second one is not made. Whatever moves a
number is in the key: the settings, the inputs' keys, the code, the versions of the libraries.
What only people read (the label) is not.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from pathlib import Path
from typing import Any

from harness.errors import RequestError
from harness.store.code_version import code_version

KEY_LENGTH = 20
"""Hexadecimal digits: 80 bits, so that no two of a million stages meet."""

_PACKAGES = ("torch", "transformers", "tokenizers", "peft", "accelerate", "numpy", "datasets")

Report = Callable[[int, int, str], None]
"""Takes what is done, of how many, and the unit: `report(40, 200, "steps")`."""


@dataclass(frozen=True, eq=False)
class Stage:
    """What is to be made, from what, by which function.

    Attributes:
        verb: what is done ("train"); also the folder that results of this kind share.
        label: for people ("train madpo, seed 1, sentiment-high"); not in the key.
        call: "harness.train.cell:train_cell"; only the worker that carries it out imports it.
        settings: JSON values, all in the key and all in the manifest: a setting never holds a
            secret. A stage that needs one reads it from the environment when it runs.
        inputs: the stages whose results it reads, by the name that the function knows them by.
        plugins: files of code from outside that it runs, in the key as code.
        tolerates: inputs that may have ended durably badly (diverged, void); the function is given
            those that did not. In the key by way of the code that asks for it.
        means: JSON values that change how it is done and not what comes out (how many calls at
            once): in no key and no manifest.
    """

    verb: str
    label: str
    call: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, Stage]
    plugins: tuple[Path, ...] = ()
    tolerates: frozenset[str] = frozenset()
    means: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert re.fullmatch(r"[a-z][a-z0-9_-]*", self.verb), f"not a folder name: {self.verb!r}"
        assert re.fullmatch(r"[\w.]+:\w+", self.call), f"not 'module:function': {self.call!r}"
        # Own copies, so that a caller who goes on changing a dictionary changes no key; through
        # JSON, so that a function sees exactly what the key saw, lists and order of names included.
        object.__setattr__(self, "settings", json.loads(_canonical(self.settings, self.label)))
        object.__setattr__(self, "inputs", dict(self.inputs))

    @cached_property
    def code(self) -> str:
        """The version of the code that the stage runs."""
        return code_version(self.call, self.plugins)

    @cached_property
    def key(self) -> str:
        """The hash of everything that the result depends on."""
        parts = {
            "verb": self.verb,
            "call": self.call,
            "settings": self.settings,
            "inputs": {name: stage.key for name, stage in self.inputs.items()},
            "code": self.code,
            "packages": package_versions(),
        }
        text = _canonical(parts, self.label)
        return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]

    def key_now(self) -> str:
        """The key that this process would give the stage, wherever it came from."""
        return replace(self).key


@dataclass(frozen=True)
class Work:
    """What a stage function is given; it returns JSON facts for the manifest.

    Attributes:
        settings: the stage's settings.
        inputs: folders of finished inputs by name; nothing may be written there.
        out: where the results go; empty at the start, renamed into place when complete.
        scratch: for checkpoints; kept when the process is killed, removed when all is complete.
        report: says how far the work is; cheap, may be called at every step.
        means: the stage's means.
        shared: a folder that all stages of a store share, for caches keyed by content.
    """

    settings: Mapping[str, Any]
    inputs: Mapping[str, Path]
    out: Path
    scratch: Path
    report: Report
    means: Mapping[str, Any] = field(default_factory=dict)
    shared: Path | None = None


@cache
def package_versions() -> dict[str, str | None]:
    """The versions of the libraries that move numbers; None for one that is not installed."""
    from importlib import metadata  # 10 ms that `harness --help` need not pay

    versions: dict[str, str | None] = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return versions


def _canonical(value: Mapping[str, Any], label: str) -> str:
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{label}: a setting is not a JSON value: {error}") from error
