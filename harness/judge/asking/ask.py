"""One call of an OpenAI-compatible end point, and what can come of it.

A call ends in an `Answer`, in a `PassingError` (it may go well the next time), in a `RefusalError`
(this question will never be answered) or in a `RequestError` (no question will).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.address import check_key, cleaned, is_here
from harness.errors import RequestError
from harness.judge.asking.answers import TOP
from harness.judge.asking.patience import wish
from harness.judge.asking.reply import Answer, PassingError, RefusalError, read_answer
from harness.judge.asking.template import Messages, sendable

if TYPE_CHECKING:
    from openai import APIStatusError, AsyncOpenAI

_PASSES = {408, 409, 429}
_NOT_THIS_QUESTION = {400, 413, 422}
_NEWER_LIMIT = "max_completion_tokens"
_LONGEST_WORDS = 300
_NO_MONEY = {"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"}
"""Codes that end points send with 400 or 429: no question is at fault."""


@dataclass(frozen=True)
class EndPoint:
    """Whom to ask, and how.

    Attributes:
        timeout: seconds that a whole call may take, however slowly its answer drips.
    """

    base_url: str
    model: str
    temperature: float = 0.0
    timeout: float = 60.0


@dataclass
class Line:
    """An open line to an end point.

    Attributes:
        limit: what this end point calls the limit of an answer's tokens.
    """

    client: AsyncOpenAI
    end_point: EndPoint
    key: str = field(repr=False)
    limit: str = "max_tokens"

    async def call(self, messages: Messages, max_tokens: int, *, logprobs: bool) -> Answer:
        """One try.

        Raises:
            PassingError: it may go well the next time.
            RefusalError: this question will not be answered.
            RequestError: no question will.
        """
        body: dict[str, Any] = {
            "model": self.end_point.model, "messages": messages, self.limit: max_tokens,
            "temperature": self.end_point.temperature,
        }  # fmt: skip
        if logprobs:
            body |= {"logprobs": True, "top_logprobs": TOP}
        try:
            return await self._post(body)
        except RefusalError as error:
            # OpenAI's newer models know the limit by this name only, and say so.
            if _NEWER_LIMIT not in str(error) or _NEWER_LIMIT in body:
                raise
            self.limit = _NEWER_LIMIT
        return await self.call(messages, max_tokens, logprobs=logprobs)

    async def _post(self, body: dict[str, Any]) -> Answer:
        import openai

        try:
            async with asyncio.timeout(self.end_point.timeout):
                # As text: a body that is cut or malformed is ours to notice, and typed answers
                # take longer to make than the call takes.
                text = await self.client.post("/chat/completions", body=body, cast_to=str)
        except TimeoutError as error:
            raise PassingError(f"no answer within {self.end_point.timeout:g} s") from error
        except openai.APIStatusError as error:
            raise self._status(error) from error
        except openai.APIConnectionError as error:
            raise PassingError(f"connection: {self._words(_cause(error))}") from error
        return read_answer(cleaned(text, self.key))

    def _status(self, error: APIStatusError) -> Exception:
        status, words = error.status_code, self._words(_said(error))
        url, model = self.end_point.base_url, self.end_point.model
        if status in (401, 403):  # its words may hold a part of the key
            return RequestError(
                f"{url} does not take the key ({status}): set OPENAI_API_KEY to one that may use "
                f"'{model}'"
            )
        if status == 402 or _NO_MONEY & {str(error.code), str(error.type)}:
            return RequestError(
                f"{url}: the key's money or quota is used up ({status}: {words}): top it up; what "
                "arrived is kept, and the same command goes on"
            )
        if status == 404:
            return RequestError(
                f"{url} has no model '{model}', or is no OpenAI-compatible address (404: {words}): "
                "check judge.model and judge.base_url, which most often ends in /v1"
            )
        if status in _PASSES or status >= 500:
            return PassingError(f"status {status}", wish(error.response.headers))
        if status in _NOT_THIS_QUESTION:
            return RefusalError(f"refused ({status}): {words}")
        return RequestError(f"{url} refuses to answer ({status}): {words}")

    def _words(self, text: str) -> str:
        """Of an end point, for an error: cut last, or a part of the key would pass unseen."""
        return " ".join(sendable(cleaned(text, self.key)).split())[:_LONGEST_WORDS]


@asynccontextmanager
async def connect(end_point: EndPoint) -> AsyncIterator[Line]:
    """A line to an end point; its connections are closed when the block ends.

    Raises:
        RequestError: the address or the key cannot be used.
    """
    from openai import AsyncOpenAI, DefaultAioHttpClient

    key, url = check_key(end_point.base_url), end_point.base_url
    # A proxy of the environment cannot reach this machine's own servers.
    direct = is_here(url) and url.startswith("http:")
    # Of the two transports of the client this one takes half the time of a call.
    transport = DefaultAioHttpClient(trust_env=not direct)
    async with AsyncOpenAI(
        api_key=key, base_url=url, timeout=end_point.timeout, max_retries=0, http_client=transport
    ) as client:
        yield Line(client, end_point, key)


def _said(error: APIStatusError) -> str:
    body = error.body if isinstance(error.body, dict) else {}
    return str(body.get("message") or error.response.text or error.response.reason_phrase)


def _cause(error: BaseException) -> str:
    """The first of the errors behind one, in words that do not change from call to call."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = str(error).split(" (", 1)[0]
    return f"{type(error).__name__} {words}"
