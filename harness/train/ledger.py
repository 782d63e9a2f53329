"""The steps that a cell may take: equal data, or as many as an equal bill pays for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.budget import Bill, ModelSize, bill
from harness.data.tokens import TokenPair
from harness.errors import GateError
from harness.train.loop import order


@dataclass(frozen=True)
class Payer:
    """What of a method costs something beside its own passes.

    Attributes:
        whole_step: a step in several micro-batches runs forward twice.
        reward_epochs: passes that its reward model was trained for; 0 without one.
    """

    reads: Sequence[str]
    whole_step: bool
    reward_epochs: int


@dataclass(frozen=True)
class Ledger:
    """Tokens of every pair, and what they cost on this model.

    Attributes:
        both: tokens of prompt and answer, of both sides, by pair.
        answers: the answers' share of them.
        equal_to: the payer whose bill for equal data is everybody's limit; None: equal data.
    """

    both: Sequence[int]
    answers: Sequence[int]
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
        answers = [len(pair.chosen) + len(pair.rejected) for pair in pairs]
        both = [2 * len(pair.prompt) + n for pair, n in zip(pairs, answers, strict=True)]
        equal = s.get("equal_to")
        return cls(
            both, answers, size, s["lora"] is not None, s["micro_pairs"], s["pairs_per_step"],
            s["epochs"], s["seed"],
            Payer(equal["reads"], equal["whole_step"], equal["reward_epochs"]) if equal else None,
        )  # fmt: skip

    def bill(self, payer: Payer, steps: Sequence[Sequence[int]]) -> Bill:
        """What these steps cost a method that pays alone for all that it reads."""
        rows = [row for step in steps for row in step]
        return bill(
            self.size,
            tokens=sum(self.both[row] for row in rows),
            answer_tokens=sum(self.answers[row] for row in rows),
            data_tokens=sum(self.both),
            data_answer_tokens=sum(self.answers),
            reads=tuple(payer.reads),
            two_passes=payer.whole_step and self.micro_pairs < self.pairs_per_step,
            lora=self.lora,
            reward_epochs=payer.reward_epochs,
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
        return order(len(self.both), epochs, self.pairs_per_step, self.seed)
