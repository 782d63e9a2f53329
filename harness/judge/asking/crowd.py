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

_SPENT = "the limit of cost"


class UnansweredError(HarnessError):
    """Some comparisons have no verdict yet; the same command asks for these and no others."""


@dataclass
class Crowd:
    """Asks with a limited number of calls at once.

    Attributes:
        settle: puts one question.
        keep: makes a verdict durable under its key; returns the one that counts.
        at_once: calls.
        control: a question that was answered before, now or in another run; None where none was.
            It is put once more where others fail, to tell whether the end point is at fault.
        verdicts: what came, by key. Those of `refused` and `failed` have no preference and are not
            kept: the next run asks them again.
        refused: keys of questions that the end point would not take.
        failed: keys of questions whose calls failed to the last, while others were answered.
        stopped: why no more questions are put; None where none had to be left.
        spent: whether it was for the money.
    """

    settle: Callable[[Versus], Awaitable[Kept]]
    keep: Callable[[str, Kept], Kept]
    at_once: int
    control: Versus | None = None
    verdicts: dict[str, Kept] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    stopped: str | None = None
    spent: bool = False
    _aside: dict[str, ExhaustedError] = field(default_factory=dict)
    _unsure: set[str] = field(default_factory=set)
    _lost_in_a_row: int = 0
    _last_chance: bool = False

    async def ask(self, todo: Mapping[str, Versus], *, alone: bool) -> None:
        """Put all questions; those that failed too often once more at the end.

        Args:
            todo: the comparisons by key.
            alone: whether one is answered before all others are put: a wrong key then costs one
                call.

        Raises:
            RequestError: no question can be answered.
            StoreError: verdicts cannot be kept.
        """
        queue = iter(todo.items())
        if alone:
            await self._first(queue)
        await self._together(queue)
        if self._aside and self.stopped is None:
            again, self._last_chance = self._aside, True
            self._aside, self._lost_in_a_row = {}, 0
            await self._together(iter([(key, todo[key]) for key in again]))
        if self._unsure and self.stopped is None:
            await self._doubt()
        self._take_back()

    async def _first(self, queue: Iterator[tuple[str, Versus]]) -> None:
        for key, versus in queue:
            await self._one(key, versus)
            if self._lost_in_a_row >= REFUSALS:
                await self._doubt()
            if self.stopped or not self._lost_in_a_row:
                return

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
            if self._lost_in_a_row >= max(self.at_once, REFUSALS):
                await self._doubt()

    async def _one(self, key: str, versus: Versus) -> None:
        try:
            kept = await self.settle(versus)
        except ExhaustedError as error:
            self._exhausted(key, error)
        except RefusalError as error:
            self._lost(key, self.refused, str(error))
        except SpentError:
            self.stopped, self.spent = _SPENT, True
        else:
            self.verdicts[key] = self.keep(key, kept)
            self.control, self._lost_in_a_row = versus, 0

    def _exhausted(self, key: str, error: ExhaustedError) -> None:
        if error.closed:
            self.stopped = str(error)
        elif not self._last_chance:
            self._aside[key] = error
            self._lost_in_a_row += 1
        elif error.answered:  # it answers, but never says anything to this
            self.verdicts[key] = self.keep(key, Kept(None, f"({error})", calls=0))
        else:
            self._lost(key, self.failed, f"(failed: {error})")

    def _lost(self, key: str, where: set[str], words: str) -> None:
        """No verdict on this question, if it is the question's own fault."""
        self.verdicts[key] = Kept(None, words, calls=0)
        where.add(key)
        self._unsure.add(key)
        self._lost_in_a_row += 1

    async def _doubt(self) -> None:
        """Find out whether the questions are at fault, or the end point: then nothing more is put.

        An end point that answers what it answered before means what it says of the others. A key
        without money is refused as a question is, and a server that breaks fails as one.

        Raises:
            RequestError: it has refused all that it was ever asked.
        """
        unsure, self._lost_in_a_row = set(self._unsure), 0
        if self.control is None:
            self._never_answered()
            return
        try:
            await self.settle(self.control)
        except (RefusalError, ExhaustedError) as error:
            self.stopped = self.stopped or str(error)
        except SpentError:
            self.stopped, self.spent = _SPENT, True
        else:
            self._unsure -= unsure

    def _never_answered(self) -> None:
        errors = [str(error) for error in self._aside.values()]
        errors += [self.verdicts[key].said for key in self.failed]
        if errors:
            self.stopped = errors[0]
            return
        refusal = self.verdicts[next(iter(self.refused))].said
        raise RequestError(f"the judge refuses to answer: {refusal}")

    def _take_back(self) -> None:
        """Verdicts that are perhaps the end point's fault are none: the next run asks again."""
        for key in self._unsure:
            del self.verdicts[key]
        self.refused -= self._unsure
        self.failed -= self._unsure


def _worded(group: ExceptionGroup[Exception]) -> Exception:
    """The first error that is a sentence for people; the first of all where none is."""
    found: Exception = group.subgroup(HarnessError) or group
    while isinstance(found, ExceptionGroup):
        found = found.exceptions[0]
    return found
