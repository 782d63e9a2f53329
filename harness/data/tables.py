"""The readers behind `load_rows`: one file, one saved split or one hub split, as columns."""

from __future__ import annotations

import difflib
import glob
import gzip
import json
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.data.files import no_split
from harness.data.identity import HubId, quiet_hub
from harness.errors import DataError

Columns = dict[str, list[Any]]

HUB_FILES = (
    "*.md",
    "*.json",
    "*.jsonl",
    "*.json.gz",
    "*.jsonl.gz",
    "*.csv",
    "*.csv.gz",
    "*.parquet",
)

# What readers raise on files that are not what their names say.
_UNREADABLE = (OSError, EOFError, ValueError, RuntimeError, zlib.error)


def read_file(path: Path, columns: Sequence[str], limit: int | None) -> Columns:
    """Columns of one `.jsonl`, `.json`, `.csv` (also with `.gz`) or `.parquet` file.

    Raises:
        DataError: the file cannot be read, names the row where it can be told; or it has not
            these columns.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    kind = next(kind for kind in ("json", "csv", "parquet") if f".{kind}" in path.name)
    # The text "NA" is a text. Left alone, pandas reads it as a missing value.
    options = {"keep_default_na": False} if kind == "csv" else {}
    files = glob.escape(str(path.absolute()))
    try:
        # An own cache for every call: a file that was rewritten must never come from an old one.
        with quiet(), tempfile.TemporaryDirectory(prefix="harness-rows-") as cache:
            table = load_dataset(kind, data_files=files, split="train", cache_dir=cache, **options)
            return _columns(str(path), table, columns, limit)
    except StopIteration:  # how the JSON reader says that it found nothing to begin with
        raise DataError(f"{path}: holds no rows; write it again") from None
    except (*_UNREADABLE, DatasetsError) as error:
        raise _broken(path, error) from error


def read_saved(folder: Path, columns: Sequence[str], limit: int | None) -> Columns:
    """Columns of one split that `Dataset.save_to_disk` wrote.

    Raises:
        DataError: the folder cannot be read or has not these columns.
    """
    from datasets import load_from_disk
    from datasets.exceptions import DatasetsError

    try:
        with quiet():
            # The saved format may say torch or numpy; columns are plain Python values.
            table = load_from_disk(str(folder)).with_format(None)
            return _columns(str(folder), table, columns, limit)
    except IndexError:  # how it says that nothing was saved
        raise DataError(f"{folder}: holds no rows; save the data set again") from None
    except (*_UNREADABLE, DatasetsError) as error:
        raise _broken(folder, error) from error


def read_hub(
    folder: Path, hub: HubId, split: str, columns: Sequence[str], limit: int | None
) -> Columns:
    """Columns of one split of a hub's data set, from its folder in the local cache.

    Raises:
        DataError: the data set is not text, lacks the split or the columns, or has several
            configurations and none is named.
    """
    from datasets import load_dataset_builder
    from datasets.exceptions import DatasetsError

    try:
        with quiet(), tempfile.TemporaryDirectory(prefix="harness-rows-") as cache:
            # The folder and not the name: by name, `datasets` takes whatever it prepared last
            # where the hub is away.
            builder = load_dataset_builder(str(folder), hub.config, cache_dir=cache)
            builder.download_and_prepare()
            splits = builder.info.splits or {}
            if split not in splits:
                raise no_split(hub.name, split, splits)
            return _columns(hub.name, builder.as_dataset(split=split), columns, limit)
    except (*_UNREADABLE, DatasetsError) as error:
        raise DataError(
            f"'{hub.name}' cannot be read: {_reason(error)}; where it has several configurations, "
            f"name one as '{hub.name}:configuration', else give a local folder"
        ) from error


def _columns(where: str, table: Any, columns: Sequence[str], limit: int | None) -> Columns:
    for column in columns:
        if column not in table.column_names:
            near = difflib.get_close_matches(column, table.column_names, n=1, cutoff=0.5)
            hint = f"; did you mean '{near[0]}'?" if near else ""
            known = ", ".join(table.column_names)
            raise DataError(f"{where}: no column '{column}'; it has: {known}{hint}")
    values = table.select_columns(list(columns))[:limit]
    return {column: list(values[column]) for column in columns}


def _broken(path: Path, error: Exception) -> DataError:
    if path.is_file() and ".jsonl" in path.name:
        line = _bad_line(path)
        if line:
            return DataError(f"{path}, {line}; mend or remove that line")
    return DataError(f"{path}: cannot be read as its name says: {_reason(error)}; write it again")


def _bad_line(path: Path) -> str:
    """The first line that is not a JSON object, if lines can be read at all."""
    opened = gzip.open if path.suffix == ".gz" else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if line.strip() and not isinstance(json.loads(line), dict):
                    return f"line {number}: not a JSON object"
    except json.JSONDecodeError as error:
        return f"line {number}: not JSON ({error.msg} at column {error.colno})"
    except (OSError, EOFError, UnicodeDecodeError, zlib.error):
        return ""
    return ""


def _reason(error: BaseException) -> str:
    """The first cause: `datasets` wraps it in a sentence that says nothing."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).strip().split("\n", 1)[0].rstrip(".") or type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """`datasets` without progress bars and log lines; as it was, afterwards."""
    import datasets

    bars, verbosity = datasets.is_progress_bar_enabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        with quiet_hub():
            yield
    finally:
        datasets.logging.set_verbosity(verbosity)
        if bars:
            datasets.enable_progress_bars()
