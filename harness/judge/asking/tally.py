"""What asking a model took, counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from harness.judge.asking.verdict_cache import Kept


@dataclass
class Tally:
    """What asking took.

    Attributes:
        reading: how answers were read, and why so.
        cached: different questions whose verdict was there already.
        asked: different questions that were put and got one.
        refused: of these, questions that the end point would not take.
        failed: questions whose calls failed to the last, while others were answered.
        failures: calls that failed, by reason.
        tokens: that all verdicts took, cached ones too; `new_tokens`: that this process took.
    """

    reading: dict[str, str] = field(default_factory=dict)
    cached: int = 0
    asked: int = 0
    refused: int = 0
    failed: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    tokens: Counter[str] = field(default_factory=Counter)
    new_tokens: Counter[str] = field(default_factory=Counter)

    def takes(self, kept: Kept) -> None:
        """Count the tokens of a verdict."""
        self.tokens.update(input=kept.input_tokens, output=kept.output_tokens)

    def facts(self) -> dict[str, Any]:
        """The same as JSON."""
        return {
            "reading": self.reading, "asked": self.asked, "cached": self.cached,
            "refused": self.refused, "failed": self.failed, "failed_calls": dict(self.failures),
            "tokens": dict(self.tokens), "new_tokens": dict(self.new_tokens),
        }  # fmt: skip
