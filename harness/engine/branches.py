"""Sequences that share prompts as one row of tokens: each prompt once, its answers side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import torch
from torch import Tensor

from harness.data.tokens import Ids

Sequences: TypeAlias = Sequence[tuple[Ids, Ids]]
"""Prompt ids and response ids of each sequence."""


@dataclass(frozen=True)
class Block:
    """Queries that attend to a stretch before them in full, and to themselves causally.

    Attributes:
        prefix: first and one past the last token that all of the queries see.
        own: first and one past the last query.
    """

    prefix: tuple[int, int]
    own: tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """One row of tokens, [tokens], and which of them see which.

    A prompt stands there once without its last token; each of its answers is a branch behind it,
    which begins with that token again, at its own position, so that every token of a branch
    predicts one token of the answer. The last token of an answer predicts nothing and is not fed.
    Branches see the prompt and themselves, not each other; prompts see themselves.

    Attributes:
        ids: [tokens].
        positions: [tokens], as they would be in a sequence of its own.
        group: [tokens], which prompt a token belongs to.
        branch: [tokens], which answer, counted from 1 within the group; 0 for the prompt's own.
        predicts: [response tokens], tokens that predict, in the order of the sequences.
        blocks: what sees what.
    """

    ids: Tensor
    positions: Tensor
    group: Tensor
    branch: Tensor
    predicts: Tensor
    blocks: tuple[Block, ...]

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest block."""
        return max(block.own[1] - block.own[0] for block in self.blocks)

    def sees(self, query: Tensor, key: Tensor) -> Tensor:
        """Whether tokens of the row see others; indices in, truth values out."""
        same = (self.group[query] == self.group[key]) & (key <= query)
        return same & ((self.branch[key] == 0) | (self.branch[key] == self.branch[query]))


def lay_out(sequences: Sequences, device: torch.device, widest: int | None = None) -> Layout:
    """Put the sequences of each prompt beside each other, prompts in the order they first come.

    Args:
        sequences: of any prompts.
        device: of the result.
        widest: tokens of a group, its prompt included; what goes beyond stands beside a copy of
            the prompt. None is as many as there are.
    """
    ids: list[int] = []
    positions: list[int] = []
    group: list[int] = []
    branch: list[int] = []
    blocks: list[Block] = []
    predicts: dict[int, range] = {}
    for number, (prompt, members) in enumerate(_groups(sequences, widest)):
        start, shared = len(ids), len(prompt) - 1
        parts = [prompt[:-1], *((prompt[-1], *sequences[m][1][:-1]) for m in members)]
        for which, part in enumerate(parts):
            own = (len(ids), len(ids) + len(part))
            ids += part
            first = shared if which else 0
            positions += range(first, first + len(part))
            group += [number] * len(part)
            branch += [which] * len(part)
            if which:
                predicts[members[which - 1]] = range(*own)
            if part:
                blocks.append(Block((start, start + shared if which else start), own))
    order = [token for number in range(len(sequences)) for token in predicts[number]]
    columns = (ids, positions, group, branch, order)
    found = [torch.tensor(column, device=device) for column in columns]
    return Layout(found[0], found[1], found[2], found[3], found[4], tuple(blocks))


def _groups(sequences: Sequences, widest: int | None) -> list[tuple[Ids, list[int]]]:
    """Prompts, and the numbers of the sequences that stand beside each."""
    groups: list[tuple[Ids, list[int]]] = []
    widths: list[int] = []
    open_: dict[Ids, int] = {}
    for number, (prompt, answer) in enumerate(sequences):
        # Of a prompt of one token nothing is left to share: its answers stand apart.
        at = open_.get(prompt) if prompt[1:] else None
        if at is None or (widest is not None and widths[at] + len(answer) > widest):
            at = open_[prompt] = len(groups)
            groups.append((prompt, []))
            widths.append(len(prompt) - 1)
        groups[at][1].append(number)
        widths[at] += len(answer)
    return groups


def fed(sequences: Sequences) -> int:
    """Tokens that are fed when each prompt is fed once."""
    prompts = {prompt for prompt, _ in sequences}
    return sum(len(p) - 1 for p in prompts) + sum(len(answer) for _, answer in sequences)


@dataclass(frozen=True)
class Rows:
    """A layout cut into rows of equal width between groups, for kernels that take a dense mask.

    Attributes:
        tokens: [rows, width], tokens of the layout; what is padding repeats the first token.
        mask: [rows, 1, width, width], whether a query sees a key; padding sees itself.
        where: [tokens of the layout], the place of each among the rows, flattened.
    """

    tokens: Tensor
    mask: Tensor
    where: Tensor


def in_rows(layout: Layout) -> Rows:
    """Groups packed into rows no wider than the widest group, the widest first."""
    counts = torch.bincount(layout.group).tolist()
    starts = [0, *torch.tensor(counts).cumsum(0).tolist()]
    width = max(counts)
    rows: list[list[int]] = []
    room: list[int] = []
    for group in sorted(range(len(counts)), key=lambda g: (-counts[g], g)):
        row = next((i for i, left in enumerate(room) if left >= counts[group]), len(rows))
        if row == len(rows):
            rows.append([])
            room.append(width)
        rows[row] += range(starts[group], starts[group + 1])
        room[row] -= counts[group]
    device = layout.ids.device
    tokens = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
    filled = torch.tensor([len(row) for row in rows], device=device)
    real = torch.arange(width, device=device) < filled[:, None]
    sees = layout.sees(tokens[:, :, None], tokens[:, None, :])
    # A query that sees nothing would be 0/0; one that sees itself harms nobody.
    itself = torch.eye(width, dtype=torch.bool, device=device)
    mask = (sees & real[:, :, None] & real[:, None, :]) | itself
    where = torch.empty(len(layout.ids), dtype=torch.long, device=device)
    where[tokens[real]] = real.flatten().nonzero().squeeze(1)
    return Rows(tokens, mask[:, None], where)
