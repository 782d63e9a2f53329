"""An OpenAI-compatible server that completes texts: one call, its answers checked, its manners."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.address import check_key, cleaned, is_direct
from harness.data.tokens import Ids
from harness.errors import HarnessError, RequestError

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

TIMEOUT = 600.0
"""Seconds for one call: a busy server lets others wait before it begins."""

RETRIES = 8
"""Of a call that failed for a reason that may pass; the client waits longer each time, and at
least as long as the server asks for."""

MALFORMED = 4
"""Bodies that are no answer, before the server counts as broken."""

STOP, LENGTH = "stop", "length"

_NOT_SO = (400, 404, 405, 415, 422, 501)
_LONGEST_WORDS, _LONGEST_WORD = 300, 40


class RefusalError(HarnessError):
    """The server will not be asked in this way."""


class Choice(NamedTuple):
    """One answer; `ids` and `logprobs` of its tokens are None where the server gives none.

    Attributes:
        ended: why it ends, in the server's word: STOP or LENGTH in every answer that is used.
    """

    text: str
    ended: str
    ids: Ids | None
    logprobs: tuple[float, ...] | None

    @property
    def finished(self) -> bool:
        """Whether the policy ended it, and not the limit of its tokens."""
        return self.ended == STOP


@dataclass(frozen=True)
class EndPoint:
    """A model on a server."""

    client: OpenAI
    model: str

    def complete(self, body: Mapping[str, Any]) -> list[Choice]:
        """The choices that came, at least one and perhaps fewer than were asked for.

        Raises:
            RefusalError: the server does not take such a request.
            RequestError: it takes none: wrong key, unknown model.
            HarnessError: it does not answer, or not in words that can be read, or not to the end.
        """
        wrong = ""
        for _ in range(MALFORMED):
            choices = _choices(self._post("/completions", {"model": self.model, **body}))
            wrong = _stopped(choices) if choices else "without a completion"
            if not wrong:
                return choices
        raise HarnessError(
            f"{self.client.base_url} answered {MALFORMED} times {wrong}: see its log, then run "
            "the same command again; what has arrived is kept"
        )

    def with_adapter(self, name: str, folder: Path) -> EndPoint:
        """The same server's model with an adapter, which it reads from a folder of this machine.

        Raises:
            RequestError: it loads none.
        """
        try:
            self._post("/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})
        except RefusalError as error:
            raise RequestError(
                f"{self.client.base_url} does not load the adapter of a trained policy ({error}): "
                "serve the base with vLLM on this machine, with --enable-lora, --max-lora-rank and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1, or take another generation.backend"
            ) from error
        return replace(self, model=name)

    def without_adapter(self, name: str) -> None:
        """The server may forget the adapter."""
        self._post("/unload_lora_adapter", {"lora_name": name})

    def _post(self, path: str, body: Mapping[str, Any]) -> str:
        import openai

        try:
            return self.client.post(path, body=body, cast_to=str)
        except openai.APIStatusError as error:
            raise self._in_words(error) from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise HarnessError(
                f"{self.client.base_url} cannot be reached, after {RETRIES} more tries "
                f"({type(cause).__name__}: {self._clean(str(cause))}): is the server running? "
                "Then run the same command again; what has arrived is kept"
            ) from error

    def _in_words(self, error: APIStatusError) -> HarnessError:
        status, url = error.status_code, self.client.base_url
        if status in (401, 403):  # its words may hold a part of the key
            return RequestError(f"{url} does not take the key ({status}): set OPENAI_API_KEY")
        words = self._clean(error.response.text)
        if status == 404 and "model" in words and error.request.url.path.endswith("/completions"):
            return RequestError(
                f"{url} has no model '{self.model}' (404: {words}): set generation.model to a name "
                "in its list of models"
            )
        if status in _NOT_SO:
            return RefusalError(f"{status}: {words}")
        return HarnessError(
            f"{url} failed, after {RETRIES} more tries ({status}: {words}): see its log, then run "
            "the same command again; what has arrived is kept"
        )

    def _clean(self, words: str) -> str:
        return " ".join(cleaned(words, self.client.api_key).split())[:_LONGEST_WORDS]


@contextmanager
def connect(base_url: str, model: str) -> Iterator[EndPoint]:
    """A model of a server, until the block ends; the key is OPENAI_API_KEY.

    Raises:
        RequestError: there is no key, and the server is on another machine.
    """
    from openai import DefaultHttpxClient, OpenAI

    key = check_key(base_url)
    transport = DefaultHttpxClient(trust_env=not is_direct(base_url))
    with OpenAI(
        api_key=key, base_url=base_url, timeout=TIMEOUT, max_retries=RETRIES, http_client=transport
    ) as client:
        yield EndPoint(client, model)


def _choices(body: str) -> list[Choice]:
    """What a body holds, in the order that it declares; nothing where it is no answer."""
    try:
        rows = sorted(json.loads(body)["choices"], key=lambda row: int(row.get("index") or 0))
        return [_choice(row) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return []


def _stopped(choices: Sequence[Choice]) -> str:
    """The end of a sentence where something else than the policy and the limit ended an answer.

    What was aborted or filtered is no sample of the policy, neither as a whole nor as cut.
    """
    other = next((one.ended for one in choices if one.ended not in (STOP, LENGTH)), None)
    if other is None:
        return ""
    return f"with a completion that neither its end nor its limit ended (finish_reason {other!r})"


def _choice(row: Mapping[str, Any]) -> Choice:
    ids = row.get("token_ids")
    return Choice(
        str(row["text"] or ""), str(row.get("finish_reason"))[:_LONGEST_WORD],
        None if ids is None else tuple(int(token) for token in ids), _logprobs(row.get("logprobs")),
    )  # fmt: skip


def _logprobs(told: Any) -> tuple[float, ...] | None:
    values = told.get("token_logprobs") if isinstance(told, dict) else None
    if not values or not all(isinstance(v, int | float) and math.isfinite(v) for v in values):
        return None
    return tuple(float(value) for value in values)
