"""What an end point sent back, checked: an answer, or why it is none."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from harness.judge.asking.answers import Token
from harness.judge.asking.template import sendable

_MOST_TOKENS = 10**9
"""Of one answer: who counts more has not counted."""


class PassingError(Exception):
    """A call failed and may go well the next time.

    Attributes:
        wish: seconds that the end point asks to wait.
        answered: whether it did answer, without saying anything.
    """

    def __init__(self, reason: str, wish: float | None = None, *, answered: bool = False) -> None:
        super().__init__(reason)
        self.wish, self.answered = wish, answered


class RefusalError(Exception):
    """The end point will not take this question: too long, or against its rules."""


class Answer(NamedTuple):
    """What came back.

    Attributes:
        text: of the answer.
        top: the tokens that could have come first; None where the end point gave none.
        tokens: of the question and of the answer; None where the end point does not count.
        ended: why the answer ended there, in the end point's word.
        raw: the body as it came, without the key.
    """

    text: str
    top: tuple[Token, ...] | None
    tokens: tuple[int, int] | None
    ended: str
    raw: str


def read_answer(body: str) -> Answer:
    """What a body says.

    Raises:
        PassingError: it is malformed, or says nothing.
    """
    try:
        data = json.loads(body)
    except (ValueError, RecursionError) as error:  # the latter for thousands of brackets
        raise PassingError("malformed JSON") from error
    if not isinstance(data, dict):
        raise PassingError("malformed answer")
    try:
        choice = data["choices"][0]
        text = choice["message"]["content"]
    except (KeyError, IndexError, TypeError) as error:
        raise PassingError("an answer without a choice", answered=True) from error
    if text is not None and not isinstance(text, str):
        raise PassingError("malformed answer", answered=True)
    # An escaped half of a character is JSON, and nothing that can be written down.
    said, ended = sendable(text or ""), sendable(str(choice.get("finish_reason")))
    return Answer(said, _top(choice), _tokens(data.get("usage")), ended, sendable(body))


def _top(choice: Mapping[str, Any]) -> tuple[Token, ...] | None:
    try:
        rows = choice["logprobs"]["content"][0]["top_logprobs"]
        top = tuple(Token(str(row["token"]), float(row["logprob"])) for row in rows)
    except (KeyError, IndexError, TypeError, ValueError, OverflowError):
        return None
    # A NaN compares as nothing does: such an answer is no answer.
    return top if top and all(token.logprob <= 0.01 for token in top) else None


def _tokens(usage: Any) -> tuple[int, int] | None:
    try:
        tokens = int(usage["prompt_tokens"]), int(usage["completion_tokens"] or 0)
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
    # What is less than nothing would fill the purse, and what is too much no table can hold.
    return tokens if all(0 <= count <= _MOST_TOKENS for count in tokens) else None
