"""From texts to token ids: one rule for prompts, one for responses, the same for every method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from harness.errors import DataError
from harness.records import Pair

Ids = tuple[int, ...]
Overlong = Literal["cut", "drop"]


@dataclass(frozen=True)
class TokenRules:
    """How a model's tokenizer is used; found by probing it, not by believing its flags.

    Attributes:
        tokenizer: a `transformers` tokenizer.
        bos: the id that begins every sequence, or None where the tokenizer adds none.
        eos: the id that ends a finished response.
        pad: any id; padding is masked everywhere.
    """

    tokenizer: Any
    bos: int | None
    eos: int
    pad: int

    @classmethod
    def of(cls, tokenizer: Any) -> TokenRules:
        """Read the contract of a tokenizer.

        Raises:
            DataError: it has no end-of-sequence token, so that nothing could ever finish.
        """
        if tokenizer.eos_token_id is None:
            raise DataError(f"{tokenizer.name_or_path}: the tokenizer has no eos_token; name one")
        eos = int(tokenizer.eos_token_id)
        first = tokenizer("a")["input_ids"][:1]
        bos = tokenizer.bos_token_id if first == [tokenizer.bos_token_id] else None
        pad = tokenizer.pad_token_id
        return cls(tokenizer, bos, eos, int(eos if pad is None else pad))

    def prompt_ids(self, prompt: str) -> Ids:
        """Ids of a prompt; exactly one BOS in front where the model wants one.

        Raises:
            DataError: nothing is left to condition on.
        """
        ids = self._begin() + self._encode(prompt)
        if not ids:
            raise DataError("a prompt has no tokens, and this tokenizer puts no BOS before it")
        return ids

    def response_ids(self, response: str) -> Ids:
        """Ids of a finished response, EOS last, tokenised apart from its prompt.

        A tokenizer that puts a space before every text would put one between prompt and response.
        There the response is tokenised behind a line break, whose ids are taken off again.
        """
        ids = self._encode(response)
        if self.text(self._encode("a") * 2) != "aa":
            mark, behind = self._encode("\n"), self._encode("\n" + response)
            if behind[: len(mark)] == mark:
                ids = behind[len(mark) :]
        return (*ids, self.eos)

    def text_ids(self, text: str) -> Ids:
        """Ids of a whole text for the supervised warm start: BOS, text, EOS."""
        return (*self._begin(), *self._encode(text), self.eos)

    def text(self, ids: Sequence[int]) -> str:
        """The text of some ids, without special tokens."""
        return str(
            self.tokenizer.decode(
                list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )

    def response_text(self, prompt_ids: Ids, ids: Ids) -> str:
        """What a response adds to its prompt, so that prompt + response is the whole text."""
        return self.text(prompt_ids + ids)[len(self.text(prompt_ids)) :]

    def _begin(self) -> Ids:
        return () if self.bos is None else (self.bos,)

    def _encode(self, text: str) -> Ids:
        # Special tokens are put in by these rules alone: one that is spelled out is plain text.
        encoded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return tuple(encoded["input_ids"])


@dataclass(frozen=True, slots=True)
class TokenPair:
    """A pair as a model sees it; both answers share the same prompt ids."""

    pair_id: str
    prompt: Ids
    chosen: Ids
    rejected: Ids


@dataclass(frozen=True)
class Limits:
    """The one declared rule for pairs that do not fit.

    Attributes:
        prompt_tokens: a longer prompt loses tokens from its beginning, never the BOS.
        response_tokens: a longer response is cut at its end and has no EOS then ("cut"), or its
            pair is dropped ("drop").
    """

    prompt_tokens: int
    response_tokens: int
    overlong: Overlong


def tokenise(
    pairs: Sequence[Pair], rules: TokenRules, limits: Limits
) -> tuple[list[TokenPair], dict[str, int]]:
    """Token pairs that can be trained on, and how many pairs went which way.

    Pairs with an empty or two identical answers, and pairs that occurred before, are dropped.

    Returns:
        the kept pairs in their order, and counts by what happened; the same for all methods.
    """
    counts = dict.fromkeys(
        ("kept", "prompt cut", "response cut", "overlong", "empty", "identical", "duplicate"), 0
    )
    seen: set[tuple[Ids, Ids, Ids]] = set()
    kept = []
    for pair in pairs:
        token_pair, fates = _tokenise_one(pair, rules, limits)
        ids = (token_pair.prompt, token_pair.chosen, token_pair.rejected)
        if not fates & {"empty", "identical", "overlong"} and ids in seen:
            fates = {"duplicate"}
        seen.add(ids)
        dropped = fates & {"empty", "identical", "overlong", "duplicate"}
        if not dropped:
            kept.append(token_pair)
            fates.add("kept")
        for fate in dropped or fates:
            counts[fate] += 1
    return kept, counts


def cut_prompt(ids: Ids, most: int, rules: TokenRules) -> Ids:
    """A prompt that is too long loses tokens from its beginning, never the BOS."""
    head = ids[:1] if rules.bos is not None else ()
    return ids if len(ids) <= most else head + ids[len(ids) - most + len(head) :]


def _tokenise_one(pair: Pair, rules: TokenRules, limits: Limits) -> tuple[TokenPair, set[str]]:
    fates = set()
    prompt = pair.prompt_ids or rules.prompt_ids(pair.prompt)
    if len(prompt) > limits.prompt_tokens:
        prompt = cut_prompt(prompt, limits.prompt_tokens, rules)
        fates.add("prompt cut")
    answers = [
        pair.chosen_ids or rules.response_ids(pair.chosen),
        pair.rejected_ids or rules.response_ids(pair.rejected),
    ]
    if any(len(answer) > limits.response_tokens for answer in answers):
        fates.add("response cut" if limits.overlong == "cut" else "overlong")
    if limits.overlong == "cut":
        answers = [answer[: limits.response_tokens] for answer in answers]
    chosen, rejected = answers
    # All special ids: a model may end its answers with another than its tokenizer's EOS.
    silent = {rules.eos, rules.pad, *rules.tokenizer.all_special_ids}
    if any(silent.issuperset(answer) for answer in answers):
        fates = {"empty"}
    elif chosen == rejected:
        fates = {"identical"}
    return TokenPair(pair.pair_id, prompt, chosen, rejected), fates
