"""What a finished stage says about itself: the last file that is written into its folder.

A folder is complete if its manifest can be read, belongs to it, and every file that it lists is
there with its size; so neither a half-written folder nor a half-copied one is taken for a result.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import StoreError

FORMAT = 1
NAME = "manifest.json"

Ending = Literal["done", "diverged", "void"]


@dataclass(frozen=True)
class Manifest:
    """How a result came about.

    Attributes:
        key: the key of the stage.
        call: the function that was called, as "module:function".
        settings: what it was called with; free of secrets, because a stage's settings are.
        inputs: keys of the inputs by name.
        code: the version of the code; see `harness.store.code_version`.
        packages: versions of the libraries that move numbers.
        device: what the facts say under "device".
        started: when the last attempt began, UTC.
        seconds: how long the last attempt took.
        attempts: how often it was begun; above 1, `seconds` leaves out what was cut short.
        peak_memory: bytes; see `harness.store.peak_memory`.
        peak_memory_measured: by what, and so since when.
        status: "done", or an end that a second try would only repeat: "diverged", "void".
        reason: why, where it is not "done".
        facts: what the stage function returned.
        files: sizes in bytes of all files beside this one.
    """

    key: str
    verb: str
    label: str
    call: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]
    code: str
    packages: Mapping[str, str | None]
    python: str
    platform: str
    device: str | None
    started: str
    seconds: float
    attempts: int
    peak_memory: int | None
    peak_memory_measured: str
    status: Ending
    reason: str
    facts: Mapping[str, Any]
    files: Mapping[str, int]


def read_manifest(folder: Path, key: str) -> Manifest | None:
    """The manifest of a complete folder; None where there is no such thing."""
    try:
        content = json.loads((folder / NAME).read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            return None
        manifest = Manifest(**content)
        complete = all((folder / f).stat().st_size == size for f, size in manifest.files.items())
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return manifest if complete and manifest.key == key else None


def sizes(folder: Path) -> dict[str, int]:
    """The size of every file of a folder, by its path in there, in order."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Makes a folder complete, on the disk and not only in memory.

    Raises:
        StoreError: the facts hold what JSON does not, such as a NaN or an array.
    """
    try:
        text = json.dumps({"format": FORMAT, **asdict(manifest)}, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise StoreError(f"{manifest.label}: a fact is not a JSON value: {error}") from error
    for path in folder.rglob("*"):
        flush(path)
    (folder / NAME).write_text(text + "\n", encoding="utf-8")
    flush(folder / NAME)
    flush(folder)


def flush(path: Path) -> None:
    """Waits until a file or a folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
