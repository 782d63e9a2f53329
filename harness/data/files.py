"""Where the splits of a local data set lie."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, get_args

from harness.errors import DataError
from harness.records import Split

SUFFIXES = (".jsonl.gz", ".jsonl", ".json.gz", ".json", ".csv.gz", ".csv", ".parquet")
_FILE = re.compile(
    r"(?P<split>[^.].*?)(?:-(?P<shard>\d+)-of-(?P<shards>\d+)(?:-[0-9a-f]+)?)?"
    r"(?P<suffix>\.(?:jsonl|json|csv)(?:\.gz)?|\.parquet)"
)


def split_paths(place: Path, split: str) -> list[tuple[str, Path]]:
    """What holds a split, in order, by names for people: files, or one folder of a saved split.

    Raises:
        DataError: there is no such split, two files claim it, or a shard is missing.
    """
    if place.is_file():
        return [(place.name, _one_file(place, split))]
    if (place / "dataset_dict.json").is_file():
        splits = _read(place / "dataset_dict.json")["splits"]
        if split not in splits:
            raise no_split(str(place), split, splits)
        return [(split, place / split)]
    if (place / "state.json").is_file():
        only = _read(place / "state.json")["_split"]
        if only not in (None, split):
            raise no_split(str(place), split, [only])
        return [(place.name, place)]
    return [(path.relative_to(place).as_posix(), path) for path in _split_files(place, split)]


def no_split(source: str, split: str, splits: Collection[str]) -> DataError:
    """The error for a split that is not there: names those that are."""
    if not splits:
        forms = ", ".join(f"{split}{suffix}" for suffix in SUFFIXES)
        return DataError(
            f"{source}: no data here; a folder must hold {forms} or what save_to_disk wrote"
        )
    near = difflib.get_close_matches(split, splits, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return DataError(f"{source}: no split '{split}'; it has: {', '.join(sorted(splits))}{hint}")


def _one_file(path: Path, split: str) -> Path:
    match = _FILE.fullmatch(path.name)
    if match is None:
        raise DataError(f"{path}: not a data file; its name must end in {', '.join(SUFFIXES)}")
    if match["split"] != split and match["split"] in get_args(Split):
        raise DataError(
            f"{path}: holds the split '{match['split']}', not '{split}'; give the folder that has "
            "both, or rename the file if its name is wrong"
        )
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); save the data set again") from error
    return {"splits": [], "_split": None, **content}


def _split_files(folder: Path, split: str) -> list[Path]:
    """The file of a split or all of its shards; also in the sub-folder `data`, as on hubs."""
    found: dict[str, list[tuple[re.Match[str], Path]]] = {}
    for place in (folder, folder / "data"):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            match = _FILE.fullmatch(path.name)
            if match and path.is_file():
                found.setdefault(match["split"], []).append((match, path))
    if split not in found:
        raise no_split(str(folder), split, found)
    return _in_order(folder, split, found[split])


def _in_order(folder: Path, split: str, files: list[tuple[re.Match[str], Path]]) -> list[Path]:
    if len(files) == 1 and files[0][0]["shard"] is None:
        return [files[0][1]]
    shards = {int(match["shard"] or -1): path for match, path in files}
    counts = {match["shards"] for match, _ in files}
    if len(counts) > 1 or -1 in shards or len(shards) < len(files):
        names = ", ".join(path.relative_to(folder).as_posix() for _, path in files)
        raise DataError(f"{folder}: several files claim the split '{split}': {names}; keep one")
    total = int(counts.pop())
    missing = sorted(set(range(total)) - shards.keys())
    if missing:
        raise DataError(
            f"{folder}: of the {total} shards of the split '{split}' these are missing: {missing}; "
            "copy the whole data set"
        )
    return [shards[i] for i in sorted(shards)]
