"""What outside data and models are, as keys see it: a digest of a folder, a commit of a hub.

Planning asks for this, so nothing here imports `datasets`, `transformers` or torch.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.errors import DataError

Kind = Literal["dataset", "model"]

_HUB_ID = re.compile(
    r"(?P<name>\w[\w.-]*(?:/\w[\w.-]*)?)(?::(?P<config>[\w.-]+))?(?:@(?P<revision>[\w./-]+))?",
    re.ASCII,
)
# `reviews.jsonl` has the form of a hub id, but whoever types it means a file.
_FILE_NAME = re.compile(r".*\.(jsonl?|csv|parquet|txt|gz|zip|safetensors|arrow)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class HubId:
    """A repository on a hub, written `owner/name`, `owner/name:config` or `owner/name@revision`."""

    name: str
    config: str | None = None
    revision: str | None = None


def locate(source: str) -> Path | HubId:
    """The file or folder of that name if there is one, else the hub id that it can be read as.

    Raises:
        DataError: nothing has that path, and it has not the form of a hub id.
    """
    path = Path(source).expanduser()
    if source and path.exists():  # an empty path would be the working folder
        return path
    match = _HUB_ID.fullmatch(source)
    if match is None or _FILE_NAME.fullmatch(source):
        raise DataError(
            f"'{source}' does not exist: give an existing file or folder, or a hub id (owner/name)"
        )
    return HubId(match["name"], match["config"], match["revision"])


def fingerprint(source: str, kind: Kind | None = None) -> str:
    """What `source` is right now: equal contents give equal fingerprints.

    Args:
        source: a file, a folder or a hub id.
        kind: what a hub id names. Where it is None both kinds are looked up, and the result
            holds the commits of both if both exist.

    Raises:
        DataError: it does not exist, holds no files, or its commit cannot be found out.
    """
    place = locate(source)
    if isinstance(place, Path):
        return digest(place)
    if kind is not None:
        return resolve(place, kind)
    commits, problems = [], []
    for each in ("dataset", "model"):
        try:
            commits.append(resolve(place, each))
        except DataError as error:
            problems.append(error)
    if not commits:
        raise problems[0]
    return "+".join(commits)


def pin(source: str, kind: Kind) -> tuple[str, str]:
    """The same source, said so that it can mean nothing else tomorrow, and its fingerprint.

    Raises:
        DataError: it does not exist, holds no files, or its commit cannot be found out.
    """
    place, content = locate(source), fingerprint(source, kind)
    if isinstance(place, Path):
        return str(place.resolve()), content
    config = f":{place.config}" if place.config else ""
    return f"{place.name}{config}@{content}", content


def digest(path: Path) -> str:
    """`sha256:...` over relative names and contents of a file, or of all visible files below.

    Raises:
        DataError: there is no file to read, or one cannot be read.
    """
    total, count = hashlib.sha256(), 0
    try:
        for name, file in _files(path):
            with file.open("rb") as handle:
                content = hashlib.file_digest(handle, "sha256").digest()
            # The content's digest has a fixed length, so no two lists of files run together.
            total.update(os.fsencode(name) + b"\0" + content)
            count += 1
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error}); check its permissions or copy it"
        ) from error
    if not count:
        raise DataError(f"{path}: holds no files; is it the right folder?")
    return f"sha256:{total.hexdigest()}"


def _files(path: Path) -> list[tuple[str, Path]]:
    """Visible files with their names relative to `path`, in an order that their names decide."""
    if path.is_file():
        return [(path.name, path)]
    return [(file.relative_to(path).as_posix(), file) for file in _walk(path, set())]


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    real = folder.resolve()
    if real in seen:  # a link back to a folder above, or twice to the same one
        return
    seen.add(real)
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            yield from _walk(entry, seen)
        elif entry.is_file():
            yield entry


def resolve(hub: HubId, kind: Kind) -> str:
    """The commit that a hub id stands for now; from the local cache where the hub is away.

    Raises:
        DataError: the hub does not know it, or is away and the cache does not hold it either.
    """
    # A small file is fetched too, so that the cache notes which commit the name stood for:
    # offline, the same call then gives the same commit.
    return fetch(hub, kind, ("README.md", "config.json")).name


def fetch(hub: HubId, kind: Kind, patterns: Sequence[str]) -> Path:
    """The folder in the hub's local cache, named by its commit, with the files of some patterns.

    Raises:
        DataError: as `resolve`.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    # The HTTP library's own base error, whichever library the hub's client is built on.
    transport: Any = HfHubHTTPError.__bases__[0]
    try:
        with quiet_hub():
            folder = snapshot_download(
                hub.name, repo_type=kind, revision=hub.revision, allow_patterns=list(patterns)
            )
    except (OSError, HFValidationError, transport) as error:
        raise _unresolved(hub, kind, error) from error
    return Path(folder)


def _unresolved(hub: HubId, kind: Kind, error: Exception) -> DataError:
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    what = f"'{hub.name}' is no file or folder here"
    noun = "data set" if kind == "dataset" else "model"
    if isinstance(error, GatedRepoError):
        return DataError(f"{what}; on the hub it is gated: ask for access there, then log in")
    if isinstance(error, RepositoryNotFoundError | HFValidationError):
        return DataError(
            f"{what}, and the hub has no such {noun} that you may read: check the spelling, log in "
            "if it is private, or give the path of a local folder"
        )
    if isinstance(error, RevisionNotFoundError):
        return DataError(f"the hub's {noun} '{hub.name}' has no revision '{hub.revision}'")
    reason = str(error.__cause__ or error).split("\n", 1)[0]
    return DataError(
        f"{what}, the hub cannot be reached, and the local cache does not hold this {noun}: "
        f"{reason}; copy the {noun} to a local folder and give its path, or go online once "
        "(without HF_HUB_OFFLINE)"
    )


@contextmanager
def quiet_hub() -> Iterator[None]:
    """The hub's client without progress bars or warnings; as it was, afterwards."""
    from huggingface_hub import constants
    from huggingface_hub.utils import logging as hub_log
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    level = hub_log.get_verbosity()
    # Where the user's environment decides about bars, the client warns at every other wish.
    ours = constants.HF_HUB_DISABLE_PROGRESS_BARS is None and not are_progress_bars_disabled()
    hub_log.set_verbosity(logging.ERROR)
    if ours:
        disable_progress_bars()
    try:
        yield
    finally:
        hub_log.set_verbosity(level)
        if ours:
            enable_progress_bars()
