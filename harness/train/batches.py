"""Batches for passes without a gradient: sorted by length, filled to a token budget."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

TOKENS = 8192
"""Padded tokens of one batch."""


def by_length(lengths: Sequence[int], tokens: int = TOKENS) -> Iterator[list[int]]:
    """Rows of each batch: neighbours in length, the longest first, so that memory peaks at once."""
    rows = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    batch: list[int] = []
    for row in rows:
        if batch and (len(batch) + 1) * lengths[batch[0]] > tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch
