"""Whether an end point gives log-probabilities, found out with the first call."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from typing import NamedTuple

from harness.errors import RequestError
from harness.judge.asking.reply import Answer, RefusalError
from harness.judge.asking.template import Messages
from harness.judge.asking.tries import ExhaustedError, Tries

REFUSALS = 3
"""Questions that fail one after the other until the fault may be the end point's."""

_ANSWERS = 3
"""Without log-probabilities, until an end point is said to have none: one may be a fault."""


class Probe(NamedTuple):
    """An answer with log-probabilities.

    Attributes:
        row: of the question, from 0.
        paid: its tokens, "input" and "output".
    """

    row: int
    answer: Answer
    paid: Counter[str]


async def find_logprobs(tries: Tries, questions: Iterable[Messages]) -> Probe | None:
    """The first answer, if there are log-probabilities in it; None where an end point gives none.

    Raises:
        RequestError, ExhaustedError: the end point answers none of the first questions.
        SpentError: as a call.
    """
    failure: RefusalError | ExhaustedError | None = None
    for row, messages in enumerate(islice(questions, REFUSALS)):
        try:
            return await _answered(tries, row, messages)
        except RefusalError as error:
            if "logprob" in str(error):  # some models refuse them and answer without
                return None
            failure = error
        except ExhaustedError as error:
            if error.closed:
                raise
            failure = error
    if isinstance(failure, ExhaustedError):
        raise failure
    raise RequestError(f"the judge refuses to answer: {failure}")


async def _answered(tries: Tries, row: int, messages: Messages) -> Probe | None:
    paid: Counter[str] = Counter()
    for _ in range(_ANSWERS):
        answer = await tries.answer(messages, paid, insist=False)
        if answer.top is not None:
            return Probe(row, answer, paid)
    return None
