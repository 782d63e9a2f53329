"""Files that others may read at any time: written aside, then renamed into place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.errors import RequestError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to; it becomes `path` when the block ends well, and is removed if not."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        yield aside
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Make sure that results can be put into a folder, before they are worked for.

    Raises:
        RequestError: the folder cannot be made, or nothing can be written there.
    """
    try:
        with replacing(folder / "writable") as aside:
            aside.write_bytes(b"")
        (folder / "writable").unlink()
    except OSError as error:
        raise RequestError(
            f"cannot write to {folder}: {error.strerror}; choose another folder"
        ) from error
