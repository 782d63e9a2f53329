"""Answers to a batch of prompts: token by token with a cache, for any `transformers` causal model.

`read` and `advance` are for models that take padding on the left, the usual case: prompts of
unequal length side by side, each read once however many answers it gets, and a row that has
finished leaves at once. `whole` leaves all of it to the library, for prompts of one length.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache, GenerationConfig, LogitsProcessor, LogitsProcessorList

from harness.data.tokens import Ids
from harness.generate.draws import Draws


@dataclass(frozen=True)
class Rows:
    """Sequences in the middle of being written.

    Attributes:
        cache: what the model keeps of them; changes in place.
        seen: 1 for a token and 0 for padding, [rows, tokens].
        position: of each row's last token, [rows, 1].
        logits: of the token that comes next, [rows, vocabulary].
    """

    cache: Any
    seen: Tensor
    position: Tensor
    logits: Tensor


def read(model: Any, prompts: Sequence[Ids]) -> Rows:
    """The prompts as rows, in their order; one that occurs several times is encoded once."""
    index = {prompt: row for row, prompt in enumerate(dict.fromkeys(prompts))}
    width = max(map(len, index))
    ids = torch.tensor([(0,) * (width - len(p)) + p for p in index], device=model.device)
    seen = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in index], device=ids.device)
    positions = (seen.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    rows = Rows(cache, seen, positions[:, -1:], _forward(model, cache, ids, seen, positions))
    if len(index) == len(prompts):
        return rows
    return keep(rows, torch.tensor([index[prompt] for prompt in prompts], device=ids.device))


def advance(model: Any, rows: Rows, tokens: Tensor) -> Rows:
    """The rows after one more token each, [rows]."""
    seen = torch.cat([rows.seen, rows.seen.new_ones(len(tokens), 1)], dim=1)
    position = rows.position + 1
    logits = _forward(model, rows.cache, tokens[:, None], seen, position)
    return Rows(rows.cache, seen, position, logits)


def keep(rows: Rows, which: Tensor) -> Rows:
    """These rows alone, in this order; the cache of the others is gone."""
    rows.cache.reorder_cache(which)
    return Rows(rows.cache, rows.seen[which], rows.position[which], rows.logits[which])


def _forward(model: Any, cache: Any, ids: Tensor, seen: Tensor, positions: Tensor) -> Tensor:
    out = model(
        input_ids=ids, attention_mask=seen, position_ids=positions, past_key_values=cache,
        use_cache=True, logits_to_keep=1,
    )  # fmt: skip
    logits: Tensor = out.logits[:, -1]
    return logits


@torch.no_grad()
def padded(
    model: Any, prompts: Sequence[Ids], draws: Draws, most: int, ends: Collection[int]
) -> list[Ids]:
    """Ids of each answer, up to and with the id that ended it, of at most `most` tokens."""
    rows, draws = read(model, prompts), draws.to(model.device)
    answers: list[list[int]] = [[] for _ in prompts]
    alive = list(range(len(prompts)))
    for step in range(most):
        tokens = draws(rows.logits, step)
        drawn = tokens.tolist()
        for row, token in zip(alive, drawn, strict=True):
            answers[row].append(token)
        left = [i for i, token in enumerate(drawn) if token not in ends]
        if not left or step + 1 == most:
            break
        if len(left) < len(alive):
            which = torch.tensor(left, device=tokens.device)
            rows, draws, tokens = keep(rows, which), draws.kept(which), tokens[which]
            alive = [alive[i] for i in left]
        rows = advance(model, rows, tokens)
    return [tuple(answer) for answer in answers]


class _Noisy(LogitsProcessor):
    """Moves all the mass of a row to the token that is drawn, so that the library finds it."""

    def __init__(self, draws: Draws, width: int) -> None:
        self.draws, self.width = draws, width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        tokens = self.draws(scores, input_ids.shape[1] - self.width)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)


@torch.no_grad()
def whole(
    model: Any, prompts: Sequence[Ids], draws: Draws, most: int, ends: Collection[int]
) -> list[Ids]:
    """What `padded` gives, for prompts of one length, by the library's own loop and cache."""
    # The model's own decoding defaults are replaced, not amended: KL needs plain samples.
    own = model.generation_config
    model.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False, max_new_tokens=most, eos_token_id=list(ends) or None, pad_token_id=0
    )
    ids = torch.tensor(prompts, device=model.device)
    noisy = _Noisy(draws.to(model.device), ids.shape[1])
    try:
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids),
            logits_processor=LogitsProcessorList([noisy]),
        )  # fmt: skip
    finally:
        model.generation_config = own
    answers = []
    for row in out[:, ids.shape[1] :].tolist():
        end = next((i for i, token in enumerate(row) if token in ends), most)
        answers.append(tuple(row[: end + 1]))
    return answers
