"""Many questions at once: the first alone, a second chance, a clean end where some stay open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field

from harness.contracts.judge import Versus
from harness.errors import HarnessError, RequestError
from harness.judge.asking.probe import REFUSALS
from harness.judge.asking.purse import SpentError
from harness.judge.asking.reply import RefusalError
from harness.judge.asking.tries import ExhaustedError
from harness.judge.asking.verdict_cache import Kept


class UnansweredError(HarnessError):
    """Some comparisons have no verdict yet; the same command asks for these and no others."""


@dataclass
class Crowd:
    """Asks with a limited number of calls at once.

    Attributes:
        settle: puts one question.
        keep: makes a verdict durable under its key; returns the one that counts.
        at_once: calls.
        verdicts: what came, by key. Refused questions have one without a preference, not kept.
        refused: keys of questions that the end point would not take.
        stopped: why no more questions are put; None where none had to be left.
        spent: whether it was for the money.
    """

    settle: Callable[[Versus], Awaitable[Kept]]
    keep: Callable[[str, Kept], Kept]
    at_once: int
    verdicts: dict[str, Kept] = field(default_factory=dict)
    refused: list[str] = field(default_factory=list)
    stopped: str | None = None
    spent: bool = False
    _aside: dict[str, ExhaustedError] = field(default_factory=dict)
    _failed_in_a_row: int = 0
    _last_chance: bool = False

    async def ask(self, todo: Mapping[str, Versus], *, alone: bool, answered: bool) -> None:
        """Put all questions; those that failed too often once more at the end.

        Args:
            todo: the comparisons by key.
            alone: whether the first is put before all others: a wrong key then costs one call.
            answered: whether this judge is known to have answered others: what it refuses is then
                the questions' fault.

        Raises:
            RequestError: no question can be answered.
            StoreError: verdicts cannot be kept.
        """
        queue = iter(todo.items())
        if alone:
            await self._first(queue, answered=answered)
        await self._together(queue)
        if self._aside and self.stopped is None:
            again, self._last_chance = self._aside, True
            self._aside, self._failed_in_a_row = {}, 0
            await self._together(iter([(key, todo[key]) for key in again]))
        if self._aside and self.stopped is None:
            self.stopped = str(next(iter(self._aside.values())))

    async def _first(self, queue: Iterator[tuple[str, Versus]], *, answered: bool) -> None:
        for key, versus in queue:
            await self._one(key, versus)
            if self._aside:
                self.stopped = str(self._aside[key])
            if answered or self.stopped or key not in self.refused:
                return
            if len(self.refused) >= REFUSALS:
                raise RequestError(f"the judge refuses to answer: {self.verdicts[key].said}")

    async def _together(self, queue: Iterator[tuple[str, Versus]]) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.at_once):
                    group.create_task(self._work(queue))
        except ExceptionGroup as group:
            raise _worded(group) from group

    async def _work(self, queue: Iterator[tuple[str, Versus]]) -> None:
        while self.stopped is None:
            found = next(queue, None)
            if found is None:
                return
            await self._one(*found)

    async def _one(self, key: str, versus: Versus) -> None:
        try:
            kept = await self.settle(versus)
        except ExhaustedError as error:
            self._exhausted(key, error)
        except RefusalError as error:
            self.verdicts[key] = Kept(None, str(error), calls=0)
            self.refused.append(key)
        except SpentError:
            self.stopped, self.spent = "the limit of cost", True
        else:
            self.verdicts[key] = self.keep(key, kept)
            self._failed_in_a_row = 0

    def _exhausted(self, key: str, error: ExhaustedError) -> None:
        if error.answered and self._last_chance:  # it answers, but never says anything to this
            self.verdicts[key] = self.keep(key, Kept(None, f"({error})", calls=0))
            return
        self._aside[key] = error
        self._failed_in_a_row += 1
        if self._failed_in_a_row >= self.at_once:
            self.stopped = str(error)


def _worded(group: ExceptionGroup[Exception]) -> Exception:
    """The first error that is a sentence for people; the first of all where none is."""
    found: Exception = group.subgroup(HarnessError) or group
    while isinstance(found, ExceptionGroup):
        found = found.exceptions[0]
    return found
