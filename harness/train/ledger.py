"""The steps that a cell may take: equal data, or as many as an equal bill pays for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from harness.budget import Bill, ModelSize, Payer, Tokens, bill
from harness.contracts.method import Method
from harness.data.tokens import TokenPair
from harness.errors import GateError
from harness.train.loop import order
from harness.train.mismatched import mismatch


@dataclass(frozen=True)
class Ledger:
    """The training pairs, and what they cost on this model.

    Attributes:
        equal_to: the payer whose bill for equal data is everybody's limit; None: equal data.
    """

    pairs: Sequence[TokenPair]
    size: ModelSize
    lora: bool
    micro_pairs: int
    pairs_per_step: int
    epochs: int
    seed: int
    equal_to: Payer | None

    @classmethod
    def of(cls, pairs: Sequence[TokenPair], size: ModelSize, s: Mapping[str, Any]) -> Ledger:
        """From token pairs and the settings of a training stage."""
        equal = s.get("equal_to")
        return cls(
            pairs, size, s["lora"] is not None, s["micro_pairs"], s["pairs_per_step"],
            s["epochs"], s["seed"], Payer(**equal) if equal else None,
        )  # fmt: skip

    @cached_property
    def _own(self) -> list[Tokens]:
        return [_tokens(pair) for pair in self.pairs]

    @cached_property
    def _others(self) -> list[Tokens]:
        return [_tokens(pair) for pair in mismatch(self.pairs)]

    def bill(self, payer: Payer, steps: Sequence[Sequence[int]]) -> Bill:
        """What these steps cost a method that pays alone for all that it reads."""
        rows = [row for step in steps for row in step]
        others = self._others if "mismatched" in payer.reads else []
        return bill(
            self.size,
            payer,
            steps=_sum(self._own[row] for row in rows),
            data=_sum(self._own),
            lora=self.lora,
            two_passes=payer.whole_step and self.micro_pairs < self.pairs_per_step,
            other_steps=_sum(others[row] for row in rows if others),
            other_data=_sum(others),
        )

    def steps(self, payer: Payer) -> list[list[int]]:
        """Data rows of every step that the method may take.

        Raises:
            GateError: the bill does not pay for one step.
        """
        equal_data = self._order(self.epochs)
        if self.equal_to is None:
            return equal_data
        limit = self.bill(self.equal_to, equal_data).total
        epochs = self.epochs
        while self.bill(payer, self._order(epochs)).total <= limit:
            epochs += 1
        steps = self._order(epochs)
        few, many = 0, len(steps)
        while few < many:
            middle = (few + many + 1) // 2
            if self.bill(payer, steps[:middle]).total <= limit:
                few = middle
            else:
                many = middle - 1
        if not few:
            raise GateError(
                f"the budget of {limit:.3g} FLOPs does not pay for one step of this method: what "
                f"it reads alone costs {self.bill(payer, []).total:.3g}"
            )
        return steps[:few]

    def _order(self, epochs: int) -> list[list[int]]:
        return order(len(self.pairs), epochs, self.pairs_per_step, self.seed)


def payer(method: Method, reward_epochs: int) -> Payer:
    """What a method costs beside its own passes, at the settings that it was narrowed to."""
    moving = method.moving_reference is not None
    return Payer(method.reads, method.whole_step, reward_epochs, moving)


def _tokens(pair: TokenPair) -> Tokens:
    answers = len(pair.chosen) + len(pair.rejected)
    return Tokens(2 * len(pair.prompt) + answers, answers)


def _sum(tokens: Iterable[Tokens]) -> Tokens:
    found = list(tokens)
    return Tokens(sum(t.both for t in found), sum(t.answers for t in found))
