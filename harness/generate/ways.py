"""How a model's answers are made: found by trying it against plain passes, not by its name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from typing import Any, TypeAlias

import torch
from torch import Tensor

from harness.data.tokens import Ids
from harness.errors import DataError
from harness.generate.decode import advance, keep, padded, read, whole
from harness.generate.draws import Draws
from harness.train.batches import by_length

Write: TypeAlias = Callable[[Any, Sequence[Ids], Draws, int, Collection[int]], list[Ids]]
"""(model, prompts, draws, most tokens, ids that end) to the ids of each answer."""

TOKENS = {"cpu": 1 << 14, "cuda": 1 << 16}
"""Tokens of one batch, prompts with padding and answers at their longest: what a cache may hold."""

STEPS = 8
"""Tokens for which a way is tried."""

TOLERANCE = 1e-3
"""Logits of two ways of computing them, in fp32, differ by less than this share of their range."""


@dataclass(frozen=True)
class Way:
    """How answers are made; `said` is the line for the manifest."""

    write: Write
    equal_lengths: bool
    said: str

    def batches(self, lengths: Sequence[int], most: int, tokens: int) -> Iterator[list[int]]:
        """Rows of each batch: neighbours in length, within the token budget, the longest first.

        A prompt that is longer than the budget is a batch of its own.
        """
        for batch in by_length([length + most for length in lengths], tokens):
            if not self.equal_lengths:
                yield batch
                continue
            for length in dict.fromkeys(lengths[row] for row in batch):
                yield [row for row in batch if lengths[row] == length]


@torch.no_grad()
def find_way(model: Any, prompts: Sequence[Ids], most: int) -> Way:
    """The fastest way that gives the logits of plain passes on a few of these prompts.

    Raises:
        DataError: not even the library's own generation does.
    """
    some, steps = _some(prompts), min(STEPS, most)
    with torch.autocast(model.device.type, enabled=False):
        problem = _trouble(lambda: _padded_off(model, some, steps))
        if problem is None:
            return Way(padded, False, "padded batches")
        worse = _trouble(lambda: _library_off(model, some[0], steps))
    name = type(model).__name__
    if worse is not None:
        raise DataError(
            f"{name}: what it gives to one token after another is not what it gives to the whole "
            f"text: {worse}. Check its code, or its version of transformers"
        )
    return Way(whole, True, f"batches of equal length, slower: with padding {name} {problem}")


def _trouble(off: Callable[[], float]) -> str | None:
    """What is wrong with a way that is `off` by this share of the logits' range, or fails."""
    try:
        found = off()
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        return f"fails ({(str(error) or type(error).__name__).splitlines()[0]})"
    return f"is off by {found:.1%} of its logits' range" if not found <= TOLERANCE else None


def _some(prompts: Sequence[Ids]) -> list[Ids]:
    """The shortest prompt, one in the middle and the longest."""
    order = sorted(set(prompts), key=lambda prompt: (len(prompt), prompt))
    return [order[i] for i in sorted({0, len(order) // 2, len(order) - 1})]


def _plain(model: Any, prompt: Ids, forced: Ids) -> Tensor:
    """Logits behind the prompt and behind each forced token, [1 + forced, vocabulary]."""
    ids = torch.tensor([prompt + forced], device=model.device)
    logits: Tensor = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :]
    return logits


def _padded_off(model: Any, prompts: Sequence[Ids], steps: int) -> float:
    """How far the logits of rows side by side are from those of plain passes.

    The rows are read, repeated, thinned out and led on, as in use.
    """
    forced = [tuple(islice(cycle(reversed(prompt)), steps - 1)) for prompt in prompts]
    rows = read(model, [prompt for prompt in prompts for _ in range(2)])
    rows = keep(rows, torch.arange(0, 2 * len(prompts), 2, device=model.device))
    found = [rows.logits]
    for tokens in zip(*forced, strict=True):
        rows = advance(model, rows, torch.tensor(tokens, device=model.device))
        found.append(rows.logits)
    plain = [_plain(model, p, f) for p, f in zip(prompts, forced, strict=True)]
    off = (torch.stack(found, dim=1) - torch.stack(plain)).abs().amax()
    return float(off / _spread(plain))


def _library_off(model: Any, prompt: Ids, steps: int) -> float:
    """How far below the likeliest token of plain passes are those that the library takes."""
    (answer,) = whole(model, [prompt], Draws.of(0, [("", 0)], 0.0), steps, ())
    logits = _plain(model, prompt, answer[:-1])
    taken = logits.gather(-1, torch.tensor(answer, device=logits.device)[:, None])
    return float((logits.amax(-1, keepdim=True) - taken).amax() / _spread([logits]))


def _spread(logits: Sequence[Tensor]) -> float:
    return float(max(one.max() - one.min() for one in logits))
