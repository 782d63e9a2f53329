"""Fingerprints: equal for equal contents, different for the smallest difference, and quick."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.data.identity import HubId, fingerprint, locate
from harness.errors import DataError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a" / "sub").mkdir(parents=True)
    (tmp_path / "a" / "train.jsonl").write_bytes(b"one")
    (tmp_path / "a" / "sub" / "test.jsonl").write_bytes(b"two")
    return tmp_path / "a"


def test_a_fingerprint_is_of_names_and_contents_alone(folder: Path) -> None:
    before = fingerprint(str(folder))
    assert before.startswith("sha256:")
    copy = folder.parent / "elsewhere"
    (copy / "sub").mkdir(parents=True)
    shutil.copyfile(folder / "sub" / "test.jsonl", copy / "sub" / "test.jsonl")
    shutil.copyfile(folder / "train.jsonl", copy / "train.jsonl")
    os.utime(copy / "train.jsonl", (0, 0))
    assert fingerprint(str(copy)) == before


def test_one_byte_or_one_name_changes_it(folder: Path) -> None:
    seen = {fingerprint(str(folder))}
    (folder / "sub" / "test.jsonl").write_bytes(b"twp")
    seen.add(fingerprint(str(folder)))
    (folder / "sub" / "test.jsonl").rename(folder / "sub" / "validation.jsonl")
    seen.add(fingerprint(str(folder)))
    (folder / "sub" / "validation.jsonl").rename(folder / "validation.jsonl")
    seen.add(fingerprint(str(folder)))
    (folder / "new.jsonl").write_bytes(b"")
    seen.add(fingerprint(str(folder)))
    assert len(seen) == 5


def test_contents_cannot_be_moved_from_file_to_file_unseen(folder: Path) -> None:
    before = fingerprint(str(folder))
    (folder / "sub" / "test.jsonl").write_bytes(b"")
    (folder / "train.jsonl").write_bytes(b"onetwo")
    assert fingerprint(str(folder)) != before
    (folder / "train.jsonl").unlink()
    (folder / "sub" / "test.jsonl").write_bytes(b"twotrain.jsonl\0one")
    assert fingerprint(str(folder)) != before


def test_order_on_disk_does_not_matter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = fingerprint(str(folder))
    forwards = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: reversed(list(forwards(self))))
    assert fingerprint(str(folder)) == before


def test_hidden_files_and_loops_of_links_change_nothing(folder: Path) -> None:
    before = fingerprint(str(folder))
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_bytes(b"x")
    (folder / ".DS_Store").write_bytes(b"x")
    (folder / "sub" / "up").symlink_to(folder)
    (folder / "self").symlink_to("self")
    assert fingerprint(str(folder)) == before


def test_linked_files_count_as_files(folder: Path) -> None:
    before = fingerprint(str(folder))
    (folder / "train.jsonl").rename(folder.parent / "blob")
    (folder / "train.jsonl").symlink_to(folder.parent / "blob")
    assert fingerprint(str(folder)) == before


def test_a_file_is_told_by_its_contents(folder: Path) -> None:
    before = fingerprint(str(folder / "train.jsonl"))
    (folder / "train.jsonl").write_bytes(b"onf")
    assert fingerprint(str(folder / "train.jsonl")) != before


def test_ten_megabytes_take_less_than_a_tenth_of_a_second(tmp_path: Path) -> None:
    for i in range(10):
        (tmp_path / f"{i}.bin").write_bytes(os.urandom(10**6))
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        fingerprint(str(tmp_path))
        taken.append(time.perf_counter() - start)
    assert min(taken) < 0.1


def test_planning_imports_nothing_heavy(folder: Path) -> None:
    code = (
        "import sys; from harness.data.identity import fingerprint; fingerprint(sys.argv[1])\n"
        "heavy = {'torch', 'datasets', 'transformers', 'pandas', 'numpy', 'huggingface_hub'}\n"
        "assert not heavy & sys.modules.keys(), heavy & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True)


@pytest.mark.parametrize(
    ("source", "place"),
    [
        ("owner/name", HubId("owner/name")),
        ("imdb", HubId("imdb")),
        ("owner/name:plain_text", HubId("owner/name", "plain_text")),
        ("owner/name@refs/pr/3", HubId("owner/name", None, "refs/pr/3")),
        ("owner/na.me-2:a@v1.0", HubId("owner/na.me-2", "a", "v1.0")),
    ],
)
def test_hub_ids_may_name_a_configuration_and_a_revision(source: str, place: HubId) -> None:
    assert locate(source) == place


@pytest.mark.parametrize(
    "source",
    ["./reviews", "/no/such", "a/b/c", "reviews.jsonl", "a/b.csv", "a b", "", "x.jsonl.gz"],
)
def test_what_can_only_be_a_path_is_never_looked_up_on_a_hub(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="does not exist: give an existing file or folder"):
        locate(source)


def test_what_exists_is_a_path_even_where_it_looks_like_a_hub_id(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    assert locate("a/sub") == Path("a/sub")


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / ".hidden").write_bytes(b"x")
    with pytest.raises(DataError, match="holds no files"):
        fingerprint(str(tmp_path))


def test_a_file_that_may_not_be_read_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path, mode: str) -> None:
        raise PermissionError(f"may not read {path.name}")

    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(DataError, match=r"cannot be read \(may not read test.jsonl\)"):
        fingerprint(str(folder))
