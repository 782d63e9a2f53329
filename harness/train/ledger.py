"""The steps that a cell may take: equal data, or as many as an equal bill pays for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness.budget import Bill, Budget, ModelSize, Payer, Tokens, bill
from harness.contracts.method import Method
from harness.data.token_store import token_counts
from harness.data.tokens import TokenPair
from harness.errors import GateError
from harness.train.loop import order
from harness.train.mismatched import mismatch

Lengths: TypeAlias = NDArray[np.int64]
"""[2, pairs]: tokens that go through the body, and those that go through the head too."""


@dataclass(frozen=True)
class Ledger:
    """The training pairs, and what they cost on this model.

    Attributes:
        equal_to: the payer whose bill for equal data is everybody's limit; None: equal data.
        micro_tokens: with `micro_pairs` says which steps make more than one micro-batch.
    """

    pairs: Sequence[TokenPair]
    size: ModelSize
    lora: bool
    micro_pairs: int
    pairs_per_step: int
    epochs: int
    seed: int
    equal_to: Payer | None
    micro_tokens: int = Budget.micro_tokens

    @classmethod
    def of(cls, pairs: Sequence[TokenPair], size: ModelSize, s: Mapping[str, Any]) -> Ledger:
        """From token pairs and the settings of a training stage."""
        equal = s.get("equal_to")
        return cls(
            pairs, size, s["lora"] is not None, s["micro_pairs"], s["pairs_per_step"],
            s["epochs"], s["seed"], Payer(**equal) if equal else None,
            s.get("micro_tokens", Budget.micro_tokens),
        )  # fmt: skip

    @cached_property
    def _own(self) -> Lengths:
        return _lengths(self.pairs)

    @cached_property
    def _others(self) -> Lengths:
        return _lengths(mismatch(self.pairs))

    def bill(self, payer: Payer, steps: Sequence[Sequence[int]]) -> Bill:
        """What these steps cost a method that pays alone for all that it reads.

        A coupled method pays twice for a step that makes several micro-batches in one process: a
        function of budget and data, so that neither other methods nor more processes move it.
        """
        again = [payer.whole_step and self._is_split(step) for step in steps]
        once = [step for step, split in zip(steps, again, strict=True) if not split]
        twice = [step for step, split in zip(steps, again, strict=True) if split]
        both = self._part(payer, once, two_passes=False), self._part(payer, twice, two_passes=True)
        return Bill(*(sum(each) for each in zip(*map(astuple, both), strict=True)))

    def _is_split(self, step: Sequence[int]) -> bool:
        # Prompts count once here, and twice in what is billed.
        tokens = int(self._in_memory[list(step)].sum())
        return len(step) > 1 and (len(step) > self.micro_pairs or tokens > self.micro_tokens)

    @cached_property
    def _in_memory(self) -> NDArray[np.int64]:
        found: NDArray[np.int64] = token_counts(self.pairs).sum(0)
        return found

    def _part(self, payer: Payer, steps: Sequence[Sequence[int]], *, two_passes: bool) -> Bill:
        """The bill of some steps; with those that are looked at once, what is paid once."""
        rows = np.fromiter(chain.from_iterable(steps), np.int64)
        others = self._others if "mismatched" in payer.reads else np.zeros_like(self._own)
        return bill(
            self.size,
            payer,
            steps=_sum(self._own[:, rows]),
            data=Tokens() if two_passes else _sum(self._own),
            lora=self.lora,
            two_passes=two_passes,
            other_steps=_sum(others[:, rows]),
            other_data=Tokens() if two_passes else _sum(others),
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


def _lengths(pairs: Sequence[TokenPair]) -> Lengths:
    prompt, chosen, rejected = token_counts(pairs)
    answers = chosen + rejected
    return np.stack([2 * prompt + answers, answers])


def _sum(lengths: Lengths) -> Tokens:
    both, answers = lengths.sum(-1).tolist()
    return Tokens(both, answers)
