"""Data sets and models by hub id, against a small hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

COMMITS = {"main": "a" * 40, "old": "b" * 40}
CONFIGURATIONS = b"""---
configs:
- {config_name: short, data_files: [{split: train, path: short.jsonl}]}
- {config_name: long, data_files: [{split: train, path: long.jsonl}]}
---
"""
FILES: dict[str, dict[str, bytes]] = {
    "datasets/owner/reviews": {
        "README.md": b"# Reviews\n",
        "data/train.jsonl": b'{"text": "one"}\n{"text": "two"}\n',
        "data/test.jsonl": b'{"text": "three"}\n',
        "reviews.py": b"raise SystemExit('remote code ran')\n",
    },
    "datasets/owner/two": {
        "README.md": CONFIGURATIONS,
        "short.jsonl": b'{"text": "s"}\n',
        "long.jsonl": b'{"text": "l"}\n',
    },
}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's protocol as its client needs: commits, lists of files, files."""

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        file = re.fullmatch(r"/(datasets/|)(owner/\w+)/resolve/(\w+)/(.+)", path)
        info = re.fullmatch(r"/api/(\w+/owner/\w+)(?:/revision/(\w+))?", path)
        tree = re.fullmatch(r"/api/(\w+/owner/\w+)/tree/\w+", path)
        if file:
            files = FILES.get((file[1] or "models/") + file[2], {})
            self.answer(files.get(file[4]), "EntryNotFound", file[3])
        elif info and info[1] in FILES:
            revision = info[2] or "main"
            commit = revision if revision in COMMITS.values() else COMMITS.get(revision)
            content = json.dumps({"id": info[1].split("/", 1)[1], "sha": commit}).encode()
            self.answer(content if commit else None, "RevisionNotFound")
        elif tree:
            listed = [
                {"type": "file", "path": name, "size": len(content), "oid": etag(content)}
                for name, content in FILES[tree[1]].items()
            ]
            self.answer(json.dumps(listed).encode(), "")
        else:
            self.answer(None, "GatedRepo" if "gated" in path else "RepoNotFound")

    def answer(self, content: bytes | None, problem: str, commit: str = "") -> None:
        self.send_response(404 if content is None else 200)
        if content is None:
            self.send_header("X-Error-Code", problem)
        self.send_header("Content-Length", str(len(content or b"")))
        self.send_header("Content-Type", "application/json")
        if commit:
            self.send_header("X-Repo-Commit", commit)
            self.send_header("ETag", f'"{etag(content or b"")}"')
        self.end_headers()
        if self.command == "GET" and content:
            self.wfile.write(content)


def etag(content: bytes) -> str:
    return hashlib.sha1(content, usedforsecurity=False).hexdigest()


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def run(home: Path, code: str, **environment: str) -> str:
    """The output of some code in a process of its own: the hub's client reads its settings once."""
    lines = (
        "from harness.data.identity import fingerprint",
        "from harness.data.load import load_rows",
        "from harness.errors import DataError",
        "def rows(source, split):",
        "    rows = load_rows(source, split, columns=['text'])",
        "    return rows.revision[:3], rows.columns['text'], rows.place(0)",
        "def said(call, *arguments):",
        "    try: return call(*arguments)",
        "    except DataError as error: return error",
        code,
    )
    plain = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        env=plain | {"HF_HOME": str(home)} | environment, cwd=home,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout.strip()


ALL = """
print(fingerprint('owner/reviews')[:3], fingerprint('owner/reviews@old', 'dataset')[:3])
print(rows('owner/reviews', 'train'))
print(rows('owner/reviews@old', 'test'))
"""
SEEN = "\n".join(
    (
        "aaa bbb",
        "('aaa', ['one', 'two'], 'owner/reviews train, row 1')",
        "('bbb', ['three'], 'owner/reviews test, row 1')",
    )
)


def test_rows_come_with_their_commit_and_again_without_a_hub(hub: str, tmp_path: Path) -> None:
    assert run(tmp_path, ALL, HF_ENDPOINT=hub) == SEEN
    assert run(tmp_path, ALL, HF_HUB_OFFLINE="1") == SEEN
    assert run(tmp_path, ALL, HF_ENDPOINT="http://127.0.0.1:9") == SEEN
    assert not list(tmp_path.rglob("*.py"))


def test_what_the_hub_does_not_have_is_named(hub: str, tmp_path: Path) -> None:
    calls = (
        "fingerprint, 'owner/nothing'",
        "fingerprint, 'owner/reviews', 'model'",
        "fingerprint, 'owner/gated'",
        "rows, 'owner/reviews@v9', 'train'",
        "rows, 'owner/reviews', 'tset'",
        "rows, 'owner/two', 'train'",
    )
    code = "\n".join(f"print(said({call}))" for call in calls)
    nothing, model, gated, revision, split, config = run(
        tmp_path, code, HF_ENDPOINT=hub
    ).splitlines()
    assert "'owner/nothing' is no file or folder here, and the hub has no such data set" in nothing
    assert "the hub has no such model that you may read" in model
    assert "on the hub it is gated" in gated
    assert revision == "the hub's data set 'owner/reviews' has no revision 'v9'"
    assert split == "owner/reviews: no split 'tset'; it has: test, train; did you mean 'test'?"
    assert "name one as 'owner/two:configuration'" in config


def test_a_configuration_is_named_after_a_colon(hub: str, tmp_path: Path) -> None:
    code = "print(*(rows(f'owner/two:{c}', 'train')[1] for c in ('short', 'long')))"
    assert run(tmp_path, code, HF_ENDPOINT=hub) == "['s'] ['l']"


def test_a_classifier_comes_with_its_commit(hub: str, tmp_path: Path, shared: Path) -> None:
    folder = shared / "models" / "avgword-imdb-sentiment"
    FILES["models/owner/words"] = {path.name: path.read_bytes() for path in folder.iterdir()}
    code = (
        "from harness.judge.rewards.classifier import load_classifier\n"
        "c = load_classifier('owner/words@old')\n"
        "print(c.facts['name'], c.facts['revision'], c.probabilities(['a great film'])[0] > 0.5)"
    )
    assert run(tmp_path, code, HF_ENDPOINT=hub) == f"owner/words@old {'b' * 40} True"


def test_without_a_hub_and_a_cache_it_says_what_to_do(tmp_path: Path) -> None:
    code = "print(said(rows, 'owner/reviews', 'train')); print(said(fingerprint, 'owner/reviews'))"
    for environment in ({"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}):
        for line in run(tmp_path, code, **environment).splitlines():
            assert "the hub cannot be reached" in line
            assert "copy the data set to a local folder and give its path" in line
