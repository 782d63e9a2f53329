"""The most memory that this process held since a moment."""

from __future__ import annotations

import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")


@dataclass(frozen=True, slots=True)
class Peak:
    """A peak, and what was measured: two of them are only comparable if that is the same.

    Attributes:
        size: bytes of resident memory of this process, without its children and without a GPU's;
            None where the system tells nothing.
        measured: "VmHWM" is the peak since the start of the stage; "ru_maxrss" is the peak since
            the start of the process, which may have belonged to an earlier stage.
    """

    size: int | None
    measured: str


def restart_peak() -> bool:
    """Makes the kernel forget this process's peak; False where it does not offer that."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def peak(*, restarted: bool) -> Peak:
    """The peak since `restart_peak`, or since the process began where that was not to be had."""
    if restarted:
        with suppress(OSError, StopIteration):
            lines = _STATUS.read_text().splitlines()
            line = next(line for line in lines if line.startswith("VmHWM:"))
            return Peak(int(line.split()[1]) * 1024, "VmHWM")
    try:
        import resource
    except ImportError:
        return Peak(None, "nothing")
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Peak(size if sys.platform == "darwin" else size * 1024, "ru_maxrss")
