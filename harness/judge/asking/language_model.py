"""A language model as a judge: what the cache lacks is asked for, and kept as it arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

from harness.contracts.judge import Reading, Versus
from harness.errors import RequestError
from harness.judge.asking.answers import from_grade, from_logprobs, from_token
from harness.judge.asking.ask import EndPoint, Line, connect
from harness.judge.asking.crowd import Crowd, UnansweredError
from harness.judge.asking.patience import Patience
from harness.judge.asking.probe import Probe, find_logprobs
from harness.judge.asking.purse import Purse, SpentError
from harness.judge.asking.reply import Answer
from harness.judge.asking.tally import Tally
from harness.judge.asking.template import Template
from harness.judge.asking.tries import ExhaustedError, Tries
from harness.judge.asking.verdict_cache import Kept, Source, VerdictCache, question_key

How = Literal["logprobs", "text"]

_WITH = "the end point gives log-probabilities"
_WITHOUT = "the end point ignores log-probabilities: text was read"


@dataclass(frozen=True)
class LanguageModel:
    """Callable as a judge.

    Attributes:
        reading: "auto" is log-probabilities where the end point gives them.
        concurrency: calls at once.
        repeat: 0, or which repetition of the same question this is.
        report: is told how many of how many verdicts there are.
    """

    end_point: EndPoint
    template: Template
    reading: Literal["auto", "logprobs", "text"]
    cache: VerdictCache
    purse: Purse
    concurrency: int
    patience: Patience
    tally: Tally = field(default_factory=Tally)
    repeat: int = 0
    report: Callable[[int, int], None] = lambda done, total: None

    def __call__(self, versus: Sequence[Versus]) -> list[Reading]:
        """One reading for each comparison, in order.

        Raises:
            RequestError: no question can be answered: key, model, address, log-probabilities.
            UnansweredError: some were not answered; those that were are kept.
        """
        if not versus:
            return []
        before = self.tally.asked
        how = self._how(versus)
        probed = self.tally.asked - before  # 1 where the question that told how was answered too
        keys = [self._key(how, one) for one in versus]
        kept = self.cache.get(list(dict.fromkeys(keys)))
        self.tally.cached += len(kept) - probed
        todo = {k: one for k, one in zip(keys, versus, strict=True) if k not in kept}
        for one in kept.values():
            self.tally.takes(one)
        if todo:
            answered = (v for k, v in zip(keys, versus, strict=True) if k in kept and kept[k].calls)
            control = next(answered, None)
            kept |= asyncio.run(self._ask(how, todo, len(kept), control, alone=not probed))
        return [Reading(kept[key].preference, kept[key].said) for key in keys]

    def again(self, repeat: int = 1) -> LanguageModel:
        """The same judge asked the same once more: its first answers are not looked at.

        What its calls take is counted with those of the first.
        """
        same = Tally(failures=self.tally.failures, new_tokens=self.tally.new_tokens)
        return replace(self, repeat=repeat, tally=same)

    def facts(self) -> dict[str, Any]:
        """What a manifest says about what was asked until now."""
        return {**self.tally.facts(), **self.purse.facts(self.tally.tokens)}

    def _how(self, versus: Sequence[Versus]) -> How:
        known = self._known()
        if known is not None:
            return known
        return asyncio.run(self._probe(versus))

    def _known(self) -> How | None:
        """How answers are read, where that is settled without a call."""
        if self.template.sides is None:
            why = f"the labels of the template '{self.template.name}' are no single tokens"
            return self._use("text", why)
        if self.reading == "text":
            return self._use("text", "judge.reading says so")
        able = self.cache.ability(self.end_point.base_url, self.end_point.model, "logprobs")
        if able:
            return self._use("logprobs", _WITH)
        if able is False and self.reading == "auto":
            return self._use("text", _WITHOUT)
        return None

    def _use(self, how: How, why: str) -> How:
        self.tally.reading.update(used=how, why=why)
        return how

    async def _probe(self, versus: Sequence[Versus]) -> How:
        """Finds out whether the end point gives log-probabilities; an answer is not wasted."""
        e = self.end_point
        async with connect(e) as line:
            try:
                found = await find_logprobs(
                    self._tries(line, "logprobs"), (self.template.messages(one) for one in versus)
                )
            except ExhaustedError as error:
                raise UnansweredError(f"{e.base_url} does not answer: {error}") from error
            except SpentError as error:
                raise self._unspent(len(versus), len(versus)) from error
        has = found is not None
        if found is not None:
            self._keep_probe(versus[found.row], found)
        elif self.reading == "logprobs":
            raise RequestError(
                f"{e.base_url} gives no log-probabilities for '{e.model}', and judge.reading is "
                '"logprobs": set it to "text", or use a server that gives them (vLLM does)'
            )
        self.cache.found_out(e.base_url, e.model, "logprobs", has=has)
        return self._use("logprobs" if has else "text", _WITH if has else _WITHOUT)

    def _keep_probe(self, versus: Versus, found: Probe) -> None:
        preference = self._read("logprobs", found.answer)
        if preference is not None:
            said, raw = found.answer.text, found.answer.raw
            kept = Kept(preference, said, raw, found.paid["input"], found.paid["output"])
            self._keep(self._key("logprobs", versus), kept)
            self.tally.asked += 1

    def _max_tokens(self, how: How) -> int:
        return 1 if how == "logprobs" else self.template.max_tokens

    def _read(self, how: How, answer: Answer) -> float | None:
        sides, labels = self.template.sides, self.template.labels
        if how == "logprobs" and sides is not None:
            return from_logprobs(answer.top or (), sides)
        read = from_token if self.template.form == "token" else from_grade
        return read(answer.text, labels)

    def _key(self, how: How, versus: Versus) -> str:
        parts = {
            "base_url": self.end_point.base_url, "model": self.end_point.model,
            "template": self.template.digest, "temperature": self.end_point.temperature,
            "max_tokens": self._max_tokens(how), "reading": how, "repeat": self.repeat,
        }  # fmt: skip
        return question_key(parts, self.template.messages(versus))

    def _keep(self, key: str, kept: Kept) -> Kept:
        source = Source(self.end_point.base_url, self.end_point.model, self.template.name)
        return self.cache.put(key, kept, source)._replace(raw="")

    def _tries(self, line: Line, how: How) -> Tries:
        return Tries(
            line, self.patience, self.purse, partial(self._read, how), self._max_tokens(how),
            how == "logprobs", self.tally.failures, self.tally.new_tokens,
        )  # fmt: skip

    async def _ask(
        self, how: How, todo: Mapping[str, Versus], done: int, control: Versus | None, *,
        alone: bool,
    ) -> dict[str, Kept]:  # fmt: skip
        total = done + len(todo)

        def keep(key: str, kept: Kept) -> Kept:
            self.tally.asked += 1
            self.report(done + len(crowd.verdicts) + 1, total)
            kept = self._keep(key, kept)
            self.tally.takes(kept)
            return kept

        async with connect(self.end_point) as line:
            tries = self._tries(line, how)
            settle = lambda one: tries.settle(self.template.messages(one))  # noqa: E731
            crowd = Crowd(settle, keep, self.concurrency, control)
            await crowd.ask(todo, alone=alone)
        self.tally.refused += len(crowd.refused)
        self.tally.failed += len(crowd.failed)
        missing = len(todo) - len(crowd.verdicts)
        if crowd.spent:
            raise self._unspent(missing, total)
        if missing:
            raise UnansweredError(
                f"{missing} of {total} comparisons have no verdict: {self.end_point.base_url} "
                f"failed again and again ({crowd.stopped}); what arrived is kept, and the same "
                "command asks only for what is missing"
            )
        return crowd.verdicts

    def _unspent(self, missing: int, total: int) -> UnansweredError:
        purse, asked = self.purse, max(1, self.tally.asked)
        currency = purse.price.currency if purse.price else ""
        cost = f"{missing * purse.spent / asked:.2g} {currency}"
        more = cost if purse.spent else "nobody knows what"
        return UnansweredError(
            f"judging stopped before the limit of {purse.limit:g} {currency} (judge.max_cost) "
            f"would be passed: {missing} of {total} comparisons have no verdict; they would cost "
            f"about {more}. What arrived is kept: the same command goes on, with a limit of its own"
        )
