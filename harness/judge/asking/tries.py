"""One question until it has an answer that can be read: retries, money, a declared end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from harness.judge.asking.ask import Line
from harness.judge.asking.patience import LONGEST_WISH, Patience
from harness.judge.asking.purse import Purse, SpentError
from harness.judge.asking.reply import Answer, PassingError
from harness.judge.asking.template import Messages
from harness.judge.asking.verdict_cache import Kept

TRIES = 4
"""Answers that a question may get before it counts as unreadable."""

Read = Callable[[Answer], float | None]


class ExhaustedError(Exception):
    """A call failed as often as it may.

    Attributes:
        answered: whether the end point did answer, without saying anything.
        closed: whether it asks for a longer wait than it gets: no question is at fault.
    """

    def __init__(self, error: PassingError) -> None:
        wish = f" (it asks to wait {error.wish:.0f} s)" if error.wish else ""
        super().__init__(f"{error}{wish}")
        self.answered = error.answered
        self.closed = (error.wish or 0.0) > LONGEST_WISH


@dataclass
class Flights:
    """Calls that are on their way, each with money set aside.

    Attributes:
        now: how many.
        landed: is set when one of them ends.
    """

    now: int = 0
    landed: asyncio.Event = field(default_factory=asyncio.Event)

    async def one_lands(self) -> None:
        """Returns when one has come back."""
        self.landed.clear()
        await self.landed.wait()

    def land(self) -> None:
        """One has come back."""
        self.now -= 1
        self.landed.set()


@dataclass(frozen=True)
class Tries:
    """How a question is put on an open line.

    Attributes:
        read: what an answer means; None where it cannot be told.
        logprobs: whether to ask for log-probabilities; an answer without them is then a failure.
        failures: calls that failed, counted by reason.
        tokens: of all answers, counted as "input" and "output".
        flights: calls on their way.
    """

    line: Line
    patience: Patience
    purse: Purse
    read: Read
    max_tokens: int
    logprobs: bool
    failures: Counter[str]
    tokens: Counter[str]
    flights: Flights = field(default_factory=Flights)

    async def settle(self, messages: Messages) -> Kept:
        """The verdict on a question; without a preference where no try could be read.

        Raises:
            ExhaustedError: a call failed too often.
            RefusalError, SpentError, RequestError: as a call.
        """
        paid: Counter[str] = Counter()
        preference, tries = None, 0
        while preference is None and tries < TRIES:
            answer = await self.answer(messages, paid)
            preference, tries = self.read(answer), tries + 1
        words = answer.text or f"(nothing: {answer.ended})"
        return Kept(preference, words, answer.raw, paid["input"], paid["output"], tries)

    async def answer(
        self, messages: Messages, paid: Counter[str], *, insist: bool = True
    ) -> Answer:
        """One well-formed answer, after as many failures as patience allows.

        Args:
            messages: the question.
            paid: is told the tokens of every answer, of useless ones too.
            insist: whether an answer without the wanted log-probabilities is a failure.

        Raises:
            ExhaustedError: a call failed too often.
            RefusalError, SpentError, RequestError: as a call.
        """
        tries = 0
        while True:
            try:
                answer = await self._call(messages, paid)
                if insist and self.logprobs and answer.top is None:
                    raise PassingError("no log-probabilities", answered=True)
            except PassingError as error:
                tries += 1
                self.failures[str(error)] += 1
                seconds = self.patience.seconds(tries, error.wish)
                if seconds is None:
                    raise ExhaustedError(error) from error
                await asyncio.sleep(seconds)
            else:
                return answer

    async def _call(self, messages: Messages, paid: Counter[str]) -> Answer:
        size = sum(len(message["content"].encode()) for message in messages)
        aside = await self._set_aside(size)
        self.flights.now += 1
        try:
            answer = await self.line.call(messages, self.max_tokens, logprobs=self.logprobs)
        except BaseException:  # a cancelled call too must not hold money back
            self.purse.give_back(aside)
            raise
        else:
            self.purse.settle(aside, size, answer.tokens)
        finally:
            self.flights.land()
        for count in (paid, self.tokens):
            count.update(dict(zip(("input", "output"), answer.tokens or (0, 0), strict=True)))
        return answer

    async def _set_aside(self, size: int) -> float:
        """Money for a call, as soon as there is enough.

        What a call on its way holds is more than it will cost, so that the rest comes back.

        Raises:
            SpentError: there is not enough, and nothing will come back.
        """
        while True:
            try:
                return self.purse.set_aside(size, self.max_tokens)
            except SpentError:
                if not self.flights.now:
                    raise
            await self.flights.one_lands()
