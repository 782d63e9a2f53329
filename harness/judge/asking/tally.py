"""What asking a model took, counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Tally:
    """What asking took.

    Attributes:
        reading: how answers were read, and why so.
        cached: different questions whose verdict was there already.
        asked: different questions that were put and got one.
        refused: of these, questions that the end point would not take.
        failures: calls that failed, by reason.
        tokens: that all verdicts took, cached ones too; `new_tokens`: that this process took.
    """

    reading: dict[str, str] = field(default_factory=dict)
    cached: int = 0
    asked: int = 0
    refused: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    new_tokens: Counter[str] = field(default_factory=Counter)

    def facts(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "reading": self.reading, "asked": self.asked, "cached": self.cached,
            "refused": self.refused, "failed_calls": dict(self.failures),
            "tokens": dict(self.tokens), "new_tokens": dict(self.new_tokens),
        }  # fmt: skip
