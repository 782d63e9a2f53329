"""What a user can meet. Every message says what, where, why and what to do next."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class HarnessError(Exception):
    """Something that the user should read as a sentence and not as a traceback."""


class RequestError(HarnessError):
    """The request cannot be understood: nothing was started or written (exit status 2)."""


class DataError(HarnessError):
    """A model folder or a data set does not hold what it must; names the file and the row."""


class DivergedError(HarnessError):
    """A training run left the finite numbers; its cell is `diverged` and is never ranked."""


class GateError(HarnessError):
    """A run's first step disagrees with what it must be; the run is void."""


class StoreError(HarnessError):
    """Results cannot be kept or read: no room, no right, or one that should be there is not."""


def unknown(kind: str, name: str, known: Iterable[str]) -> RequestError:
    """The error for a name that does not exist: names the nearest one that does."""
    choices = sorted(known)
    near = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(choices) or 'none'}"
    return RequestError(f"unknown {kind} '{name}': {hint}")
