"""The tokenised pairs of a data set, made once for all methods, settings and seeds."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import eq
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from harness.data.ragged import Column, create_ragged, load_ragged
from harness.data.tokens import Limits, TokenPair, TokenRules, tokenise
from harness.errors import DataError
from harness.records import Pair, Split, read_jsonl
from harness.store.stage import Work

_SIDES = ("prompt", "chosen", "rejected")
_COLUMNS = ("pair_id", *_SIDES)


def tokenise_pairs(work: Work) -> Mapping[str, Any]:
    """Stage: pairs to token ids, by split; what was cut or dropped is counted in the manifest.

    Raises:
        DataError: a split has no pair left to use.
    """
    rules = TokenRules.of(AutoTokenizer.from_pretrained(work.inputs["policy"]))
    limits = Limits(**work.settings["limits"])
    pairs = read_jsonl(work.inputs["pairs"] / "pairs.jsonl", Pair)
    facts: dict[str, Any] = {}
    splits: tuple[Split, Split] = ("train", "validation")
    for split in splits:
        mine = [pair for pair in pairs if pair.split == split]
        kept, facts[split] = tokenise(mine, rules, limits)
        if not kept:
            raise DataError(f"no {split} pair is left of {len(mine)}: {json.dumps(facts[split])}")
        kept = kept[: work.settings["most"][split]]
        facts[split]["used"] = len(kept)
        save_pairs(work.out / f"{split}.safetensors", kept)
    return facts


def save_pairs(path: Path, pairs: Sequence[TokenPair]) -> None:
    """Write the pairs as ragged arrays: ids in 32 bits, and their names."""
    names = [pair.pair_id.encode() for pair in pairs]
    lengths = token_counts(pairs)
    columns = create_ragged(
        path,
        **{side: (lengths[i], np.int32) for i, side in enumerate(_SIDES)},
        pair_id=([len(name) for name in names], np.uint8),
    )
    for row, (pair, name) in enumerate(zip(pairs, names, strict=True)):
        columns["pair_id"].put(row, np.frombuffer(name, np.uint8))
        for side in _SIDES:
            columns[side].put(row, getattr(pair, side))


@dataclass(frozen=True, eq=False)
class StoredPairs(Sequence[TokenPair]):
    """The token pairs of a file, each made when it is asked for; a slice is another view."""

    columns: Mapping[str, Column]
    which: range

    def __len__(self) -> int:
        return len(self.which)

    @overload
    def __getitem__(self, row: int) -> TokenPair: ...
    @overload
    def __getitem__(self, row: slice) -> StoredPairs: ...
    def __getitem__(self, row: int | slice) -> TokenPair | StoredPairs:
        if isinstance(row, slice):
            return replace(self, which=self.which[row])
        return _pair(*(self.columns[name][self.which[row]] for name in _COLUMNS))

    def __iter__(self) -> Iterator[TokenPair]:
        return map(_pair, *(self.columns[name].some(self.which) for name in _COLUMNS))

    def __eq__(self, other: object) -> bool:
        return _same(self, other)

    __hash__ = None  # type: ignore[assignment]

    def prompts(self) -> Iterator[bytes]:
        """As `prompts`; no other id is read for it."""
        return (row.tobytes() for row in self.columns["prompt"].some(self.which))

    def counts(self) -> NDArray[np.int64]:
        """As `token_counts`; no id is read for it."""
        return np.stack([self.columns[side].lengths[self.which] for side in _SIDES])


@dataclass(frozen=True, eq=False)
class CrossedPairs(Sequence[TokenPair]):
    """Each pair's name and prompt with the answers of another, put together when asked for.

    Attributes:
        donors: [pairs], the row of `pairs` that gives the answers.
    """

    pairs: Sequence[TokenPair]
    donors: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.donors)

    @overload
    def __getitem__(self, row: int) -> TokenPair: ...
    @overload
    def __getitem__(self, row: slice) -> list[TokenPair]: ...
    def __getitem__(self, row: int | slice) -> TokenPair | list[TokenPair]:
        if isinstance(row, slice):
            return [self[i] for i in range(len(self))[row]]
        own, other = self.pairs[row], self.pairs[int(self.donors[row])]
        return TokenPair(own.pair_id, own.prompt, other.chosen, other.rejected)

    def __eq__(self, other: object) -> bool:
        return _same(self, other)

    __hash__ = None  # type: ignore[assignment]

    def counts(self) -> NDArray[np.int64]:
        """As `token_counts`."""
        own = token_counts(self.pairs)
        return np.stack([own[0], *own[1:, self.donors]])


def load_pairs(folder: Path, split: Split) -> StoredPairs:
    """The token pairs of a split, opened; each is read when it is asked for."""
    columns = load_ragged(folder / f"{split}.safetensors")
    return StoredPairs(columns, range(len(columns["prompt"])))


def token_counts(pairs: Sequence[TokenPair]) -> NDArray[np.int64]:
    """How many tokens prompt, chosen and rejected answer have, [3, pairs]."""
    if isinstance(pairs, StoredPairs | CrossedPairs):
        return pairs.counts()
    rows = [[len(pair.prompt), len(pair.chosen), len(pair.rejected)] for pair in pairs]
    return np.array(rows, dtype=np.int64).reshape(-1, 3).T


def prompts(pairs: Sequence[TokenPair]) -> Iterator[object]:
    """Something of each prompt that is equal where prompts are equal."""
    if isinstance(pairs, StoredPairs):
        return pairs.prompts()
    return (pair.prompt for pair in pairs)


def _pair(*columns: NDArray[Any]) -> TokenPair:
    name, prompt, chosen, rejected = columns
    sides = (tuple(ids.tolist()) for ids in (prompt, chosen, rejected))
    return TokenPair(name.tobytes().decode(), *sides)


def _same(pairs: Sequence[TokenPair], other: object) -> bool:
    return isinstance(other, Sequence) and len(pairs) == len(other) and all(map(eq, pairs, other))
