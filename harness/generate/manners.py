"""How a server is asked: the parameters that it takes, and what it makes of them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from harness.data.tokens import Ids, TokenRules
from harness.errors import RequestError
from harness.generate.asked import Asked, draw_seed
from harness.generate.end_point import Choice, EndPoint, RefusalError
from harness.generate.selfcheck import Tried


@dataclass(frozen=True)
class Manner:
    """How a server can be asked.

    Attributes:
        ids: prompts as token ids, so that it reads what the policy was trained on.
        vllm: with parameters of vLLM's own, which give ids back and switch its defaults off.
        many: several answers in one call.
    """

    ids: bool
    vllm: bool
    many: bool = False


MANNERS = (Manner(ids=True, vllm=True), Manner(ids=True, vllm=False), Manner(ids=False, vllm=False))
"""The best one first."""


@dataclass(frozen=True)
class Ask:
    """What does not change from call to call.

    Attributes:
        most: tokens of an answer.
        ends: ids that end one.
    """

    rules: TokenRules
    seed: int
    most: int
    ends: Ids

    def body(
        self, manner: Manner, one: Asked, *, n: int = 1, logprobs: bool = False
    ) -> dict[str, Any]:
        """Of one call."""
        body: dict[str, Any] = {
            "prompt": list(one.ids) if manner.ids else self.rules.text(one.ids),
            "max_tokens": self.most, "temperature": one.temperature, "top_p": 1.0,
            "seed": draw_seed(self.seed, one.prompt_id, one.sample),
        }  # fmt: skip
        if n > 1:
            body["n"] = n
        if logprobs:
            body["logprobs"] = 1
        if manner.vllm:
            body |= {
                "return_token_ids": True, "stop_token_ids": list(self.ends), "top_k": -1,
                "min_p": 0.0, "repetition_penalty": 1.0,
            }  # fmt: skip
        return body

    def ids(self, one: Asked, choice: Choice) -> tuple[Ids, bool]:
        """Of an answer, and whether they say what the server said."""
        if choice.ids is not None:
            ids = choice.ids[: self.most]
        else:
            ids = self.rules.response_ids(choice.text)
            ids = (ids if choice.finished else ids[:-1])[: self.most]
        if choice.finished and len(ids) < self.most and (not ids or ids[-1] not in self.ends):
            ids = (*ids, self.rules.eos)  # it was not told
        ids = ids or (self.rules.eos,)  # nothing was said, and that took all its tokens
        # A server that decodes an answer by itself leaves out the space before it.
        return ids, self.rules.response_text(one.ids, ids).lstrip() == choice.text.lstrip()

    def tried(self, one: Asked, choice: Choice) -> Tried | None:
        """An answer whose tokens are known, for the check."""
        (ids, same), given = self.ids(one, choice), choice.logprobs
        if choice.ids is None:
            if ids[-1] == self.rules.eos:
                ids = ids[:-1]  # another id may have ended it
            # A special token leaves no trace in a text.
            told = given is None or len(given) - len(ids) in (0, 1)
            if not (same and ids and told):
                return None
        return Tried(one.ids, ids, given[: len(ids)] if given and len(given) >= len(ids) else None)


def find_manner(point: EndPoint, ask: Ask, asked: Sequence[Asked]) -> tuple[Manner, list[str]]:
    """How the server can be asked, and sentences about what it cannot do.

    Raises:
        RequestError: it completes no text at all.
    """
    words = ""
    for manner in MANNERS:
        try:
            (first, *_) = point.complete(ask.body(manner, asked[0], logprobs=True))
            break
        except RefusalError as error:
            words = str(error)
    else:
        raise RequestError(
            f"{point.client.base_url} does not complete texts ({words}): generation needs a server "
            "with /v1/completions"
        )
    said = []
    if first.logprobs is None:
        said.append("it gives no log-probabilities: its greedy answers alone were checked")
    if not manner.ids:
        said.append("it takes no token ids: prompts were sent as texts")
    if first.ids is None:
        said.append("it gives no token ids: its texts were tokenised here")
    if not manner.vllm or first.ids is None:
        said.append("it may cut its samples by a top-k of its own: it has no word to forbid it")
    drawn = next((one for one in asked if one.temperature), None)
    if drawn is not None:
        many, more = _draws(point, ask, manner, drawn)
        return replace(manner, many=many), said + more
    return manner, said


def _draws(point: EndPoint, ask: Ask, manner: Manner, one: Asked) -> tuple[bool, list[str]]:
    """Whether it gives several answers in one call, and what it does with a seed."""
    said, many = [], False
    with suppress(RefusalError):
        many = len(point.complete(ask.body(manner, one, n=2))) == 2
    if not many:
        said.append("it ignores n: every completion was asked for by itself")
    first, again = (point.complete(ask.body(manner, one))[0].text for _ in range(2))
    if first != again:
        said.append("it ignores seeds: the same command would not draw these completions again")
    return many, said
