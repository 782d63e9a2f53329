"""What a check can end in, and what a report says of one method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import Tensor

Status: TypeAlias = Literal["passed", "failed", "skipped"]


class BrokenError(Exception):
    """A law that does not hold: what was expected, and what came."""

    def __init__(self, expected: str, came: str) -> None:
        super().__init__(f"expected {expected}; came {came}")
        self.expected, self.came = expected, came


class SkipError(Exception):
    """A law that has nothing to say about this method; the message is the reason."""


@dataclass(frozen=True)
class Finding:
    """How one check ended.

    Attributes:
        check: its id.
        trap: the mistake that it is there for, with its number where it has one.
        expected: what the law asks for; empty unless it failed.
        came: what was found instead, or why the check was skipped.
        seconds: how long it took.
    """

    check: str
    trap: str
    status: Status
    expected: str = ""
    came: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """All findings about one method, in the order of the checks."""

    name: str
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> tuple[Finding, ...]:
        """The checks that failed."""
        return self._of("failed")

    @property
    def skipped(self) -> tuple[Finding, ...]:
        """The checks that had nothing to say."""
        return self._of("skipped")

    @property
    def passed(self) -> tuple[Finding, ...]:
        """The checks that passed."""
        return self._of("passed")

    @property
    def seconds(self) -> float:
        """How long all of it took."""
        return sum(finding.seconds for finding in self.findings)

    def _of(self, status: Status) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.status == status)


def shown(numbers: Tensor, most: int = 4) -> str:
    """The first few numbers of a tensor, for a sentence."""
    flat = numbers.detach().double().flatten()
    text = ", ".join(f"{number:.6g}" for number in flat[:most].tolist())
    return f"[{text}{', ...' if len(flat) > most else ''}]"
