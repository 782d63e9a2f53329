"""Rows of text data sets in every local form, and what is said where something is wrong."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.data.identity import fingerprint
from harness.data.load import Rows, load_rows
from harness.errors import DataError

ROWS = [
    {"text": "a fine film", "label": 1},
    {"text": "NA", "label": 0},
    {"text": "two\nlines, and a comma", "label": 1},
]


def write(path: Path, rows: list[dict[str, Any]] = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    plain = path.name.removesuffix(".gz")
    if plain.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "wt", encoding="utf-8", newline="") as file:
        if plain.endswith(".csv"):
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        elif plain.endswith(".json"):
            json.dump(rows, file)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def save(folder: Path, splits: dict[str, list[dict[str, Any]]] | None) -> None:
    """What `save_to_disk` writes, of named splits or of one data set."""
    import datasets

    datasets.disable_progress_bars()
    if splits is None:
        datasets.Dataset.from_list(ROWS).with_format("numpy").save_to_disk(folder)
    else:
        made = {split: datasets.Dataset.from_list(rows) for split, rows in splits.items()}
        datasets.DatasetDict(made).save_to_disk(folder)
    datasets.enable_progress_bars()


def message(call: Callable[[], object]) -> str:
    with pytest.raises(DataError) as caught:
        call()
    return str(caught.value)


FORMS = ["jsonl", "jsonl.gz", "json", "json.gz", "csv", "csv.gz", "parquet"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_columns(tmp_path: Path, form: str) -> None:
    write(tmp_path / f"train.{form}")
    write(tmp_path / f"test.{form}", ROWS[:1])
    rows = load_rows(str(tmp_path), "train", columns=["label", "text"])
    assert list(rows.columns) == ["label", "text"]
    assert rows.columns["text"] == [row["text"] for row in ROWS]
    assert rows.columns["label"] == [1, 0, 1]
    assert len(rows) == 3
    assert rows.place(1) == f"train.{form}, row 2"
    assert rows.texts("text") == rows.columns["text"]


@pytest.mark.parametrize("form", FORMS)
def test_a_single_file_is_the_split_that_is_asked_for(tmp_path: Path, form: str) -> None:
    path = write(tmp_path / f"reviews.{form}")
    assert load_rows(str(path), "train", columns=["label"]).columns["label"] == [1, 0, 1]


def test_a_saved_data_set_gives_plain_values(tmp_path: Path) -> None:
    save(tmp_path / "splits", {"train": ROWS, "test": ROWS[:1]})
    rows = load_rows(str(tmp_path / "splits"), "test", columns=["text"])
    assert (rows.columns["text"], rows.place(0)) == (["a fine film"], "test, row 1")
    save(tmp_path / "one", None)
    labels = load_rows(str(tmp_path / "one"), "train", columns=["label"]).columns["label"]
    assert [type(label) for label in labels] == [int, int, int]


def test_shards_follow_their_numbers_and_places_name_them(tmp_path: Path) -> None:
    for i in (10, 2, 0, 1, 3, 4, 5, 6, 7, 8, 9):
        write(
            tmp_path / "data" / f"train-{i}-of-11.parquet", [{"text": f"{i}a"}, {"text": f"{i}b"}]
        )
    rows = load_rows(str(tmp_path), "train", columns=["text"])
    assert rows.columns["text"] == [f"{i}{half}" for i in range(11) for half in "ab"]
    assert rows.place(0) == "data/train-0-of-11.parquet, row 1"
    assert rows.place(21) == "data/train-10-of-11.parquet, row 2"
    assert (Rows("x", "y", {}, (("a", 2), ("b", 1)))).place(2) == "b, row 1"


@pytest.mark.parametrize("i", [-1, 3])
def test_a_row_that_is_not_there_has_no_place(i: int) -> None:
    with pytest.raises(IndexError, match="3 rows"):
        Rows("x", "y", {}, (("a", 2), ("b", 1))).place(i)


@pytest.mark.parametrize(("limit", "texts"), [(1, ["0"]), (2, ["0", "1"]), (3, list("012"))])
def test_a_limit_counts_over_files(tmp_path: Path, limit: int, texts: list[str]) -> None:
    for i in range(2):
        two = [{"text": str(2 * i)}, {"text": str(2 * i + 1)}]
        write(tmp_path / f"train-0000{i}-of-00002.jsonl", two)
    rows = load_rows(str(tmp_path), "train", columns=["text"], limit=limit)
    assert rows.columns["text"] == texts
    assert len(rows) == limit


def test_real_reviews_load_with_every_row(shared: Path) -> None:
    source = str(shared / "data" / "imdb")
    rows = load_rows(source, "test", columns=["text", "label"])
    assert len(rows) == len(rows.texts("text")) == 5000
    assert rows.columns["label"].count("pos") == 2500
    assert rows.place(4999) == "test.jsonl.gz, row 5000"
    assert rows.revision == fingerprint(source)
    with gzip.open(shared / "data" / "imdb" / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        assert rows.columns["text"] == [json.loads(line)["text"] for line in file]


def test_a_rewritten_file_is_read_again(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl")
    load_rows(str(path), "train", columns=["text"])
    stat = path.stat()
    write(path, [{"text": "b fine film"}, *ROWS[1:]])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load_rows(str(path), "train", columns=["text"]).columns["text"][0] == "b fine film"


def test_folders_with_pattern_characters_are_only_folders(tmp_path: Path) -> None:
    write(tmp_path / "run[1]*" / "train.jsonl")
    assert len(load_rows(str(tmp_path / "run[1]*"), "train", columns=["text"])) == 3


def test_loading_writes_nothing_beside_the_data_and_nothing_on_the_terminal(tmp_path: Path) -> None:
    write(tmp_path / "data" / "train.jsonl.gz")
    write(tmp_path / "data" / "test.csv")
    (tmp_path / "empty").mkdir()
    code = (
        "import sys; from harness.data.load import load_rows\n"
        "for split in ('train', 'test'): load_rows('../data', split, columns=['text'])\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "empty", capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    written = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*"))
    assert written == ["data", "data/test.csv", "data/train.jsonl.gz", "empty"]


def test_what_cannot_be_found_is_named(tmp_path: Path) -> None:
    missing = message(lambda: load_rows(str(tmp_path / "nope"), "train", columns=["text"]))
    assert missing.startswith(f"'{tmp_path}/nope' does not exist")
    write(tmp_path / "train.jsonl")
    write(tmp_path / "test.jsonl")
    split = message(lambda: load_rows(str(tmp_path), "tset", columns=["text"]))
    assert split == f"{tmp_path}: no split 'tset'; it has: test, train; did you mean 'test'?"
    column = message(lambda: load_rows(str(tmp_path), "test", columns=["label", "txt"]))
    assert column == (
        f"{tmp_path}/test.jsonl: no column 'txt'; it has: text, label; did you mean 'text'?"
    )
    (tmp_path / "empty").mkdir()
    nothing = message(lambda: load_rows(str(tmp_path / "empty"), "train", columns=["text"]))
    assert "holds no files" in nothing
    (tmp_path / "empty" / "notes.txt").write_text("x")
    nothing = message(lambda: load_rows(str(tmp_path / "empty"), "train", columns=["text"]))
    assert "no data here; a folder must hold train.jsonl.gz" in nothing
    form = message(lambda: load_rows(str(tmp_path / "empty/notes.txt"), "train", columns=["text"]))
    assert "its name must end in .jsonl.gz" in form


def test_a_missing_split_of_a_saved_data_set_is_named(tmp_path: Path) -> None:
    save(tmp_path / "splits", {"train": ROWS, "test": ROWS[:1]})
    said = message(lambda: load_rows(str(tmp_path / "splits"), "validation", columns=["text"]))
    assert said.endswith("no split 'validation'; it has: test, train")
    column = message(lambda: load_rows(str(tmp_path / "splits"), "test", columns=["txt"]))
    assert column.endswith(
        "splits/test: no column 'txt'; it has: text, label; did you mean 'text'?"
    )
    save(tmp_path / "one", None)
    state = tmp_path / "one" / "state.json"
    state.write_text(json.dumps(json.loads(state.read_text()) | {"_split": "train"}))
    assert len(load_rows(str(tmp_path / "one"), "train", columns=["text"])) == 3
    said = message(lambda: load_rows(str(tmp_path / "one"), "test", columns=["text"]))
    assert said.endswith("no split 'test'; it has: train")
    shutil.copy(write(tmp_path / "broken.txt", ROWS), tmp_path / "one" / "state.json")
    assert "save the data set again" in message(
        lambda: load_rows(str(tmp_path / "one"), "test", columns=["text"])
    )


def test_a_file_named_after_one_split_is_not_another(tmp_path: Path) -> None:
    path = write(tmp_path / "train.jsonl")
    said = message(lambda: load_rows(str(path), "test", columns=["text"]))
    assert said.startswith(f"{path}: holds the split 'train', not 'test'")


def test_two_files_for_one_split_and_missing_shards_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "train.jsonl")
    write(tmp_path / "train.csv")
    said = message(lambda: load_rows(str(tmp_path), "train", columns=["text"]))
    assert "several files claim the split 'train': train.csv, train.jsonl" in said
    write(tmp_path / "test-00001-of-00003.parquet")
    said = message(lambda: load_rows(str(tmp_path), "test", columns=["text"]))
    assert "of the 3 shards of the split 'test' these are missing: [0, 2]" in said


@pytest.mark.parametrize(
    ("value", "problem"),
    [("", "is empty"), (" \n", "is empty"), (None, "is missing"), (7, "is 7, not a text")],
)
def test_a_row_without_text_is_named(tmp_path: Path, value: object, problem: str) -> None:
    rows = [{"text": "good"}, {"text": value}, {"text": "bad"}, {"text": value}]
    write(tmp_path / "train.jsonl", rows)
    loaded = load_rows(str(tmp_path), "train", columns=["text"])
    said = message(lambda: loaded.texts("text"))
    assert said.startswith(f"{tmp_path}: train.jsonl, row 2: 'text' {problem} (2 of 4 rows)")
    if value == 7:
        assert problem in message(lambda: loaded.texts("text", empty=True))
    else:
        assert loaded.texts("text", empty=True) == ["good", value or "", "bad", value or ""]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("train.jsonl", b'{"text": "a"}\n\n{"text": "b",,}\n', "line 3: not JSON ("),
        ("train.jsonl.gz", gzip.compress(b'{"text": "a"}\n{"text"\n'), "line 2: not JSON ("),
        ("train.jsonl", b'{"text": "a"}\n[1, 2]\n', "line 2: not a JSON object"),
        ("train.jsonl", b"", "holds no rows"),
        ("train.jsonl.gz", gzip.compress(b""), "holds no rows"),
        ("train.jsonl.gz", b"not gzip", "Not a gzipped file"),
        ("train.jsonl.gz", gzip.compress(b'{"text": "a"}\n' * 999)[:-20], "ended before"),
        ("train.csv", b"text,label\na,1\nb,2,3\n", "Expected 2 fields in line 3, saw 3"),
        ("train.csv", "text\ncafé\n".encode("latin-1"), "codec can't decode"),
        ("train.parquet", b"not parquet", "cannot be read"),
        ("train.json", b"{", "cannot be read"),
    ],
)
def test_a_broken_file_is_named_and_where_it_breaks(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    text = message(lambda: load_rows(str(tmp_path), "train", columns=["text"]))
    assert text.startswith(f"{tmp_path / name}")
    assert said in text


def test_a_split_without_rows_is_refused(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_bytes(b"[]")
    said = message(lambda: load_rows(str(tmp_path), "train", columns=["text"]))
    assert said.startswith(f"{tmp_path}/train.json: cannot be read as its name says: ")
    import datasets

    for shards, text in (
        (None, "holds no rows; save the data set again"),
        (1, "the split 'train' holds no rows"),
    ):
        folder = tmp_path / str(shards)
        datasets.Dataset.from_dict({"text": []}).save_to_disk(folder, num_shards=shards)
        said = message(lambda folder=folder: load_rows(str(folder), "train", columns=["text"]))
        assert said == f"{folder}: {text}"
