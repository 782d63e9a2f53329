"""Every comparison asked in both orders, and what that says of the judge."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from harness.contracts.judge import Judge, Reading, Versus
from harness.errors import DataError
from harness.records import Verdict
from harness.stats.agreement import Measured, clustered_mean

_EXAMPLES = 5
_WORDS = 200


class Match(NamedTuple):
    """A policy's answer and the baseline's answer to the same prompt.

    Attributes:
        sample: with `temperature`, which of the policy's answers.
    """

    prompt_id: str
    sample: int
    temperature: float
    prompt: str
    answer: str
    baseline: str

    @property
    def equal(self) -> bool:
        """Whether both answers are the same, but for spaces around them."""
        return self.answer.strip() == self.baseline.strip()


class Judged(NamedTuple):
    """What came of some matches, all in their order.

    Attributes:
        verdicts: one for each match.
        shown_first: what was said where the policy's answer was shown first; None for matches
            that were not asked, since both answers are equal. `shown_second` likewise; its
            preference is for what was shown first there, the baseline's answer.
    """

    verdicts: list[Verdict]
    shown_first: list[Reading | None]
    shown_second: list[Reading | None]


def both_orders(judge: Judge, matches: Sequence[Match]) -> Judged:
    """A verdict on each match: the mean of both orders; 0.5 for equal answers, not asked.

    Raises:
        DataError: the judge gave another number of readings, or one that is no preference.
    """
    rows = [row for row, match in enumerate(matches) if not match.equal]
    asked = [_first(matches[row]) for row in rows] + [_second(matches[row]) for row in rows]
    readings = _checked(judge(asked), len(asked)) if asked else []
    first: list[Reading | None] = [None] * len(matches)
    second = list(first)
    for row, one, other in zip(
        rows, readings[: len(rows)], readings[len(rows) :], strict=True
    ):  # fmt: skip
        first[row], second[row] = one, other
    verdicts = [_verdict(*both) for both in zip(matches, first, second, strict=True)]
    return Judged(verdicts, first, second)


def _first(match: Match) -> Versus:
    return Versus(match.prompt, match.answer, match.baseline)


def _second(match: Match) -> Versus:
    return Versus(match.prompt, match.baseline, match.answer)


def _checked(readings: Sequence[Reading], wanted: int) -> Sequence[Reading]:
    if len(readings) != wanted:
        raise DataError(f"the judge gave {len(readings)} readings of {wanted} comparisons")
    for reading in readings:
        if reading.preference is not None and not 0 <= reading.preference <= 1:
            raise DataError(f"the judge's preference {reading.preference} is not from 0 to 1")
    return readings


def _verdict(match: Match, first: Reading | None, second: Reading | None) -> Verdict:
    about = (match.prompt_id, match.sample, match.temperature)
    if first is None or second is None:
        return Verdict(*about, None, None, 0.5, asked=False, baseline=match.baseline)
    one = first.preference
    other = None if second.preference is None else 1 - second.preference
    mean = None if one is None or other is None else (one + other) / 2
    return Verdict(*about, one, other, mean, asked=True, baseline=match.baseline)


def order_effects(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """Position effect and consistency of a judge, from -1 or 0 to 1, with 95 % intervals.

    The position effect is how much more the policy's answer is preferred where it is shown first;
    consistent is a verdict that prefers the same answer in both orders, or neither in both.
    Prompts are the independent evidence, and not their several answers.
    """
    both = [
        (v.prompt_id, v.shown_first - 0.5, v.shown_second - 0.5)
        for v in verdicts
        if v.shown_first is not None and v.shown_second is not None
    ]
    prompts = [prompt for prompt, _, _ in both]
    effects = [first - second for _, first, second in both]
    same = [float(first * second > 0 or first == second == 0) for _, first, second in both]
    return {
        "position_effect": measured(clustered_mean(effects, prompts)),
        "consistency": measured(clustered_mean(same, prompts)),
    }


def retest_noise(judge: Judge, matches: Sequence[Match], judged: Judged, share: float) -> Any:
    """How much a judge differs from itself, asked the same in the same order once more.

    Args:
        judge: looks at none of its first answers.
        matches: all of them.
        judged: what it said first.
        share: of the comparisons; which ones, their content decides.

    Returns:
        How many were judged again, how many of them could be read both times, and the mean absolute
        difference of both readings with its interval over prompts.
    """
    rows = [r for r, match in enumerate(matches) if not match.equal and _drawn(match, share)]
    again = both_orders(judge, [matches[row] for row in rows])
    differences, prompts = [], []
    for place, row in enumerate(rows):
        for before, after in (
            (judged.shown_first[row], again.shown_first[place]),
            (judged.shown_second[row], again.shown_second[place]),
        ):
            if before and after and None not in (before.preference, after.preference):
                differences.append(abs(_number(before) - _number(after)))
                prompts.append(matches[row].prompt_id)
    return {
        "comparisons": 2 * len(rows), "read": len(differences),
        "mean_absolute_difference": measured(clustered_mean(differences, prompts)),
    }  # fmt: skip


def _number(reading: Reading) -> float:
    assert reading.preference is not None
    return reading.preference


def _drawn(match: Match, share: float) -> bool:
    """The same matches in every run, whatever the others are."""
    text = "\0".join((match.prompt, match.answer, match.baseline))
    digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


def unreadable(judged: Judged) -> dict[str, Any]:
    """How many verdicts and answers could not be read, and some of what was said instead."""
    lost = sum(verdict.preference is None for verdict in judged.verdicts)
    said = [
        reading.said[:_WORDS]
        for both in zip(judged.shown_first, judged.shown_second, strict=True)
        for reading in both
        if reading is not None and reading.preference is None
    ]
    return {"verdicts": lost, "answers": len(said), "said": list(dict.fromkeys(said))[:_EXAMPLES]}


def measured(found: Measured | None) -> Mapping[str, Any] | None:
    """A figure and its interval as a manifest has it."""
    return None if found is None else {"value": found.value, "low": found.low, "high": found.high}
