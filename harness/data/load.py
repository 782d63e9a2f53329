"""Rows of a text data set, from a local path or a hub id, through `datasets`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from harness.data.files import split_paths
from harness.data.identity import HubId, digest, fetch, locate
from harness.data.tables import HUB_FILES, Columns, read_file, read_hub, read_saved
from harness.errors import DataError

Reader = Callable[[Sequence[str], int | None], Columns]


@dataclass(frozen=True)
class Rows:
    """The wanted columns of one split.

    Attributes:
        source: the path or hub id, as it was given.
        revision: what was read: a digest of the folder, or the commit of the hub.
        columns: one list per wanted column; all have the same length.
        parts: where the rows lie: names of files, and how many rows of each were read.
    """

    source: str
    revision: str
    columns: Mapping[str, list[Any]]
    parts: tuple[tuple[str, int], ...]

    def __len__(self) -> int:
        return sum(count for _, count in self.parts)

    def place(self, i: int) -> str:
        """Where row `i` (from 0) lies, for people: its file, and its row there counted from 1.

        Raises:
            IndexError: there is no such row.
        """
        left = i
        for name, count in self.parts if i >= 0 else ():
            if left < count:
                return f"{name}, row {left + 1}"
            left -= count
        raise IndexError(f"{self.source} has {len(self)} rows, and no row {i}")

    def texts(self, column: str, *, empty: bool = False) -> list[str]:
        """A column in which every row must be a text.

        Args:
            column: one of the wanted columns.
            empty: whether a row may have no text; a missing one then counts as "".

        Raises:
            DataError: a row holds something else; names the first and how many there are.
        """
        values = ["" if empty and value is None else value for value in self.columns[column]]
        wrong = [i for i, value in enumerate(values) if _problem(value, empty)]
        if wrong:
            raise DataError(
                f"{self.source}: {self.place(wrong[0])}: '{column}' {_problem(values[wrong[0]])} "
                f"({len(wrong)} of {len(self)} rows); mend or remove what is not a text"
            )
        return values


def _problem(value: Any, empty: bool = False) -> str:
    if value is None:
        return "is missing"
    if not isinstance(value, str):
        return f"is {value!r:.40}, not a text"
    return "" if empty or value.strip() else "is empty"


def load_rows(source: str, split: str, *, columns: Sequence[str], limit: int | None = None) -> Rows:
    """The wanted columns of a split of a data set; nothing is written beside the data.

    Args:
        source: a folder (`<split>.jsonl`, `.json`, `.csv`, each also with `.gz`, `.parquet`, their
            shards, or what `save_to_disk` writes), one such file, or a hub id.
        split: its name. A single file is the split that is asked for, unless it is named after
            another one.
        columns: names of the wanted columns.
        limit: how many rows from the beginning at most.

    Raises:
        DataError: it does not exist, cannot be reached or read, or lacks the split, a column
            or any row; names the file, the row where there is one, and the fix.
    """
    assert columns, "name the columns to read"
    place = locate(source)
    if isinstance(place, HubId):
        folder = fetch(place, "dataset", HUB_FILES)
        revision = folder.name
        readers = [(f"{place.name} {split}", partial(read_hub, folder, place, split))]
    else:
        revision = digest(place)
        readers = [
            (name, partial(read_saved if path.is_dir() else read_file, path))
            for name, path in split_paths(place, split)
        ]
    values, parts = _gather(readers, columns, limit)
    if not sum(count for _, count in parts):
        raise DataError(f"{source}: the split '{split}' holds no rows")
    return Rows(source, revision, values, tuple(parts))


def _gather(
    readers: Iterable[tuple[str, Reader]], columns: Sequence[str], limit: int | None
) -> tuple[Columns, list[tuple[str, int]]]:
    values: Columns = {column: [] for column in columns}
    parts: list[tuple[str, int]] = []
    for name, read in readers:
        left = None if limit is None else limit - sum(count for _, count in parts)
        if left == 0:
            break
        part = read(columns, left)
        for column in columns:
            values[column] += part[column]
        parts.append((name, len(part[columns[0]])))
    return values, parts
