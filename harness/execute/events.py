"""What an executor says while it works, and what it hands back."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.store.stage import Stage

Status = Literal["done", "cached", "diverged", "void", "failed", "skipped"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a stage ended.

    Attributes:
        status: "done" now or "cached" from before; "diverged" and "void" are durable ends, handed
            on to whatever was to be built on them; "failed" is tried again by the next run;
            "skipped" was never begun because an input failed.
        reason: in words, where it is neither done nor cached, and where it was not needed.
        seconds: how long it took, also where that was in an earlier run.
        traceback: the file that holds it, where a stage failed and left one.
    """

    status: Status
    reason: str = ""
    seconds: float = 0.0
    traceback: Path | None = None

    @property
    def lasting(self) -> bool:
        """Whether it ended badly in a way that a second try would only repeat."""
        return self.status in ("diverged", "void")

    @property
    def usable(self) -> bool:
        """Whether others can be built on it."""
        return self.status in ("done", "cached")


@dataclass(frozen=True, slots=True)
class Waiting:
    """Another process makes this stage just now; a worker waits for it."""

    stage: Stage


@dataclass(frozen=True, slots=True)
class Started:
    """A worker has begun."""

    stage: Stage


@dataclass(frozen=True, slots=True)
class Progress:
    """So much is done, of so many `unit`s."""

    stage: Stage
    done: int
    total: int
    unit: str


@dataclass(frozen=True, slots=True)
class Finished:
    """A stage has its outcome; there is exactly one of these for each."""

    stage: Stage
    outcome: Outcome


Event = Waiting | Started | Progress | Finished
