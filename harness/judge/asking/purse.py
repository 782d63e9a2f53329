"""A limit on what calls may cost, kept by all processes that share a cache of verdicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from harness.judge.asking.prices import Price
from harness.judge.asking.verdict_cache import VerdictCache

_FRAME = 64
"""Bytes beside the messages: what a chat template adds."""

_MARGIN = 1.25


class SpentError(Exception):
    """The next call could pass the limit."""


@dataclass
class Purse:
    """Money is set aside before a call, for the most that it is thought to cost.

    Attributes:
        name: of the limit: all processes that use it share one.
        process: whose account in it this is.
        limit: in the price's currency; None where there is none.
        spent: by this process, in the currency; 0 without a price.
        guessed: calls whose tokens the end point did not count; their cost is what was set aside.
        density: the most tokens per byte of a question seen so far; no token is less than a byte.
    """

    name: str
    process: str
    price: Price | None
    limit: float | None
    cache: VerdictCache
    spent: float = 0.0
    guessed: int = 0
    density: float | None = None

    def set_aside(self, question_bytes: int, answer_tokens: int) -> float:
        """What the call may cost, now put down to the account.

        Raises:
            SpentError: not so much is left.
        """
        if self.price is None or self.limit is None:
            return 0.0
        density = 1.0 if self.density is None else min(1.0, _MARGIN * self.density)
        most = self.price.of(density * (question_bytes + _FRAME), answer_tokens)
        if not self.cache.take(self.name, self.process, most, self.limit):
            raise SpentError
        return most

    def settle(self, aside: float, question_bytes: int, tokens: tuple[int, int] | None) -> None:
        """Put down what the call did cost in place of what was set aside for it."""
        if tokens is not None:
            self.density = max(self.density or 0.0, tokens[0] / (question_bytes + _FRAME))
        if self.price is None:
            return
        self.guessed += tokens is None
        cost = aside if tokens is None else self.price.of(*tokens)
        self.spent += cost
        if self.limit is not None:
            self.cache.give_back(self.name, self.process, aside - cost)

    def give_back(self, aside: float) -> None:
        """Take back what was set aside for a call that brought no answer."""
        if self.limit is not None:
            self.cache.give_back(self.name, self.process, aside)

    def facts(self, tokens: Mapping[str, int]) -> dict[str, Any]:
        """What was spent now, and what all verdicts did cost, as JSON; nothing without a price."""
        if self.price is None:
            return {}
        cost = {
            "currency": self.price.currency, "new": self.spent,
            "all": self.price.of(tokens.get("input", 0), tokens.get("output", 0)),
            "calls_without_usage": self.guessed,
        }  # fmt: skip
        return {"cost": cost}
