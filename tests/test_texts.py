"""The rule by which texts are kept: every text that is dropped is counted and can be found."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from harness.data.load import Rows, load_rows
from harness.data.texts import keep_texts
from harness.errors import DataError


def test_each_reason_is_counted_and_its_first_places_are_named() -> None:
    texts = ["a", "", "b c", "a", " \n", "b\n c ", "test", "d", "test", "a", "a", "a"]
    rows = Rows("x", "y", {"text": texts}, (("train.jsonl", len(texts)),))
    kept = keep_texts(texts, rows.place, held_out=["test\n", "never seen"])
    assert kept.texts == ["a", "b c", "d"]
    assert kept.rows == [0, 2, 7]
    assert kept.dropped == {"empty": 2, "held out": 2, "duplicate": 5}
    assert kept.places == {
        "empty": ["train.jsonl, row 2", "train.jsonl, row 5"],
        "held out": ["train.jsonl, row 7", "train.jsonl, row 9"],
        "duplicate": ["train.jsonl, row 4", "train.jsonl, row 6", "train.jsonl, row 10"],
    }
    assert kept.facts["kept"] + sum(kept.facts["dropped"].values()) == len(texts)
    json.dumps(kept.facts)


def test_texts_are_kept_as_they_are() -> None:
    assert keep_texts([" A  text\n", "a text", "A Text"]).texts == [
        " A  text\n",
        "a text",
        "A Text",
    ]


def test_a_held_out_text_beats_a_duplicate() -> None:
    assert keep_texts(["a", "b", "b"], held_out=["b"]).dropped["held out"] == 2


def test_without_any_usable_text_it_says_what_became_of_them() -> None:
    with pytest.raises(DataError, match=r"none of 3 texts .*'empty': 1, 'held out': 2"):
        keep_texts(["", "a", "a"], held_out=["a"])


def test_overlaps_between_real_splits_are_found(shared: Path, tmp_path: Path) -> None:
    with gzip.open(shared / "data" / "imdb" / "test.jsonl.gz", "rt", encoding="utf-8") as file:
        lines = [next(file) for _ in range(300)]
    (tmp_path / "train.jsonl").write_text("".join(lines[:200]), encoding="utf-8")
    (tmp_path / "test.jsonl").write_text("".join(lines[150:]), encoding="utf-8")
    train, test = (load_rows(str(tmp_path), split, columns=["text"]) for split in ("train", "test"))
    kept_test = keep_texts(test.texts("text"), test.place)
    kept = keep_texts(train.texts("text"), train.place, held_out=kept_test.texts)
    assert kept.dropped["held out"] == 50
    assert kept.places["held out"][0] == "train.jsonl, row 151"
    assert not set(kept.texts) & set(kept_test.texts)
