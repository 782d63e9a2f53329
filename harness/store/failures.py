"""Failures in words: what happened, where, and what to do next."""

from __future__ import annotations

import errno
import os
import shutil
import traceback
from pathlib import Path

from harness.errors import HarnessError, StoreError

_NO_ROOM = {
    errno.ENOSPC: "no room on the disk that holds {place}{free}: make room",
    errno.EDQUOT: "the disk quota is used up where {place} is: make room or raise the quota",
    errno.EFBIG: "{place} grew beyond the largest file that is allowed: see `ulimit -f`",
}
_NO_RIGHT = {errno.EACCES, errno.EPERM, errno.EROFS}
_AGAIN = "then run the same command again; what is complete is kept"
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")
_SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD")


def in_words(error: BaseException, root: Path) -> HarnessError | None:
    """The same failure as a sentence, where it is one that a user can do something about."""
    if isinstance(error, HarnessError):
        return error
    if isinstance(error, OSError) and error.errno != errno.ENOMEM:
        return _disk(error.errno, error.filename, root)
    text = str(error)
    if "No space left on device" in text:  # safetensors wraps the OSError in one of its own
        return _disk(errno.ENOSPC, None, root)
    if is_memory(error):
        return HarnessError(
            f"memory ran out ({_first_line(error)}): use fewer workers or smaller micro-batches, "
            + _AGAIN
        )
    return None


def is_memory(error: BaseException) -> bool:
    """Whether memory ran out, which is of a machine and a moment; PyTorch says it in words."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY)


def sentence(error: BaseException, root: Path) -> str:
    """What a user reads about a failure, without anybody's secret."""
    known = in_words(error, root)
    return without_secrets(str(known) if known else _first_line(error))


def write_traceback(path: Path, label: str, error: BaseException) -> bool:
    """Keeps the whole traceback; False where even that cannot be written."""
    text = f"{label}\n\n" + "".join(traceback.format_exception(error))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(without_secrets(text), encoding="utf-8")
    except OSError:
        return False
    return True


def without_secrets(text: str) -> str:
    """A text with the values of secret-looking environment variables replaced by their names.

    Servers quote the key that they refuse, and so do the exceptions of their clients.
    """
    for name, value in os.environ.items():
        if name.upper().endswith(_SECRET) and len(value) >= 8:
            text = text.replace(value, f"${name}")
    return text


def _disk(number: int | None, filename: object, root: Path) -> StoreError | None:
    place = str(filename or root)
    if number in _NO_ROOM:
        return StoreError(f"{_NO_ROOM[number].format(place=place, free=_free(root))}, {_AGAIN}")
    if number in _NO_RIGHT and filename:  # without a file it is no disk: a socket, a device
        why = os.strerror(number).lower()
        return StoreError(f"{why}: {place}: see who may read and write there, {_AGAIN}")
    return None


def _free(root: Path) -> str:
    try:
        return f" ({shutil.disk_usage(root).free / 1e6:.0f} MB free)"
    except OSError:
        return ""


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
