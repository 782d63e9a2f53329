"""Ragged arrays on disk: token ids and per-token numbers of sequences of unequal length.

A file is a plain safetensors file, with the values of a column in one tensor and the offsets of its
rows in another. Rows are read when they are asked for and nothing of them is kept, so what a
process holds of a column is its offsets: 8 bytes a row. A memory map would not do: every page that
was ever touched counts as the process's, and after an epoch that is the whole file.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import DTypeLike, NDArray

from harness.errors import DataError

Ragged: TypeAlias = Sequence[NDArray[Any]]
"""A 1-D array for each row."""

_NAMES = {"F64": "<f8", "F32": "<f4", "I64": "<i8", "I32": "<i4", "U8": "|u1"}
_CODES = {np.dtype(kind): name for name, kind in _NAMES.items()}
_AT_ONCE = 256  # rows
_HEADER = 8  # bytes that hold the header's own length


@dataclass(frozen=True, eq=False)
class Column(Sequence[NDArray[Any]]):
    """The rows of one column of an open file.

    Attributes:
        offsets: [rows + 1], where each row begins and the last one ends, counted in values.
        start: where the values begin, in bytes of the file.
    """

    file: _File
    offsets: NDArray[np.int64]
    start: int
    kind: np.dtype[Any]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """How many values each row has."""
        return np.diff(self.offsets)

    @overload
    def __getitem__(self, row: int) -> NDArray[Any]: ...
    @overload
    def __getitem__(self, row: slice) -> list[NDArray[Any]]: ...
    def __getitem__(self, row: int | slice) -> Any:
        if isinstance(row, slice):
            return [self[i] for i in range(len(self))[row]]
        place, size = self._place(row)
        return np.frombuffer(self.file.read(place, size), self.kind)

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return self.some(range(len(self)))

    def some(self, rows: range) -> Iterator[NDArray[Any]]:
        """These rows in their order; neighbours are read many at a time."""
        if rows.step != 1:
            yield from (self[row] for row in rows)
            return
        for first in range(rows.start, rows.stop, _AT_ONCE):
            last = min(first + _AT_ONCE, rows.stop)
            ends = self.offsets[first : last + 1] - self.offsets[first]
            place, _ = self._place(first)
            block = np.frombuffer(
                self.file.read(place, int(ends[-1]) * self.kind.itemsize), self.kind
            )
            yield from (block[begin:end] for begin, end in pairwise(ends.tolist()))

    def put(self, row: int, values: Any) -> None:
        """Fills a row of a file that `create_ragged` opened."""
        place, size = self._place(row)
        content = np.asarray(values)
        assert len(content) * self.kind.itemsize == size, f"row {row}: {len(content)} values"
        if size:  # an empty list is of floats, and would not be cast
            content = content.astype(self.kind, casting="same_kind", copy=False)
            self.file.write(place, content.tobytes())

    def _place(self, row: int) -> tuple[int, int]:
        row = range(len(self))[row]  # raises an IndexError, and understands what is below 0
        begin, end = int(self.offsets[row]), int(self.offsets[row + 1])
        return self.start + begin * self.kind.itemsize, (end - begin) * self.kind.itemsize


def load_ragged(path: Path) -> dict[str, Column]:
    """The columns of a file, opened; rows are read when they are asked for.

    Raises:
        DataError: the file is not whole.
    """
    file = _File(path, os.O_RDONLY)
    size = int.from_bytes(file.read(0, _HEADER), "little")
    header: dict[str, Any] = json.loads(file.read(_HEADER, size))
    columns = {}
    for name in [name.removesuffix(".offsets") for name in header if name.endswith(".offsets")]:
        begin, end = header[f"{name}.offsets"]["data_offsets"]
        offsets = np.frombuffer(file.read(_HEADER + size + begin, end - begin), np.int64)
        values = header[f"{name}.values"]
        start = _HEADER + size + values["data_offsets"][0]
        columns[name] = Column(file, offsets, start, np.dtype(_NAMES[values["dtype"]]))
    return columns


def create_ragged(
    path: Path, **columns: tuple[Sequence[int] | NDArray[Any], DTypeLike]
) -> dict[str, Column]:
    """A new file of rows of these lengths and this type, to be filled by `Column.put` in any order.

    Rows that nobody fills are zero.
    """
    offsets = {name: np.cumsum([0, *sizes], dtype=np.int64) for name, (sizes, _) in columns.items()}
    kinds = {name: np.dtype(kind) for name, (_, kind) in columns.items()}
    tensors: dict[str, tuple[np.dtype[Any], int]] = {
        f"{name}.offsets": (np.dtype(np.int64), len(ends)) for name, ends in offsets.items()
    }
    # Wide types first, so that every tensor begins at a multiple of its own width.
    for name in sorted(kinds, key=lambda name: -kinds[name].itemsize):
        tensors[f"{name}.values"] = (kinds[name], int(offsets[name][-1]))
    header, starts, end = _header(tensors)
    path.write_bytes(header)
    file = _File(path, os.O_RDWR)
    os.truncate(path, end)
    for name, ends in offsets.items():
        file.write(starts[f"{name}.offsets"], ends.tobytes())
    return {
        name: Column(file, offsets[name], starts[f"{name}.values"], kinds[name]) for name in columns
    }


def save_ragged(path: Path, **columns: Sequence[Any]) -> None:
    """Write columns, each a list of 1-D arrays or of lists of numbers."""
    shapes = {name: ([len(row) for row in rows], _kind(rows)) for name, rows in columns.items()}
    for name, column in create_ragged(path, **shapes).items():
        for row, values in enumerate(columns[name]):
            column.put(row, values)


def _kind(rows: Sequence[Any]) -> np.dtype[Any]:
    # An empty list has a type too, fp64: it must not become that of the other rows.
    kinds = {np.asarray(row).dtype for row in rows if len(row)}
    return np.result_type(*kinds) if kinds else np.asarray(rows[0] if rows else []).dtype


def _header(
    tensors: Mapping[str, tuple[np.dtype[Any], int]],
) -> tuple[bytes, dict[str, int], int]:
    """The header as safetensors has it, where each tensor starts, and where the last one ends."""
    entries, starts, at = {}, {}, 0
    for name, (kind, count) in tensors.items():
        starts[name], end = at, at + count * kind.itemsize
        entries[name] = {"dtype": _CODES[kind], "shape": [count], "data_offsets": [at, end]}
        at = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _HEADER)
    base = _HEADER + len(text)
    starts = {name: base + start for name, start in starts.items()}
    return len(text).to_bytes(_HEADER, "little") + text, starts, base + at


class _File:
    """A file that is read and written by place, and closed when nobody knows it any more."""

    def __init__(self, path: Path, flags: int) -> None:
        self._path = path
        self._handle = os.open(path, flags | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._handle)

    def read(self, place: int, size: int) -> bytes:
        found = os.pread(self._handle, size, place)
        while len(found) < size:  # one call gives at most 2 GB
            more = os.pread(self._handle, size - len(found), place + len(found))
            if not more:
                raise DataError(
                    f"{self._path} ends at byte {place + len(found)}, and must go on to "
                    f"{place + size}: it was cut off. Remove its folder and run again"
                )
            found += more
        return found

    def write(self, place: int, content: bytes) -> None:
        left = memoryview(content)
        while left:
            done = os.pwrite(self._handle, left, place)
            left, place = left[done:], place + done
