"""What judges said, kept by the content of the question: an SQLite file that runs share.

In WAL mode a reader never waits for a writer, and what was committed survives `kill -9` of any
process. Several processes may write; the first answer to a question stays. Where the file system
has no shared memory (network folders) SQLite keeps its rollback journal, which is slower.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock

from harness.errors import StoreError

FILE = "verdicts.sqlite"
_SECONDS_FOR_A_LOCK = 60.0
_AT_ONCE = 500
_RAW_CHARACTERS = 65_536

_TABLES = """
CREATE TABLE IF NOT EXISTS verdicts (
    key TEXT PRIMARY KEY, preference REAL, said TEXT NOT NULL, raw TEXT NOT NULL,
    input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL, calls INTEGER NOT NULL,
    model TEXT NOT NULL, base_url TEXT NOT NULL, template TEXT NOT NULL, at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS end_points (
    base_url TEXT, model TEXT, ability TEXT, has INTEGER NOT NULL,
    PRIMARY KEY (base_url, model, ability)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS purses (
    purse TEXT, process TEXT, amount REAL NOT NULL, PRIMARY KEY (purse, process)
) WITHOUT ROWID;
"""


def question_key(parts: Mapping[str, Any], messages: Sequence[Mapping[str, str]]) -> str:
    """The name of a question: equal only where all that moves its answer is equal."""
    text = json.dumps([parts, messages], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


class Kept(NamedTuple):
    """One judged comparison, in the order in which the judge saw it.

    Attributes:
        preference: for the first answer, 0 to 1; None where no try could be read.
        said: the judge's words, or why there are none.
        raw: the last answer, as it came.
        input_tokens: of all tries together; `output_tokens` likewise.
        calls: tries that were answered.
    """

    preference: float | None
    said: str
    raw: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    calls: int = 1


@dataclass(frozen=True)
class Source:
    """Whom a question was put to, for people who read the file."""

    base_url: str
    model: str
    template: str


@dataclass(frozen=True)
class VerdictCache:
    """An open cache; one process, one thread.

    Attributes:
        path: of the file.
        connection: to it.
    """

    path: Path
    connection: sqlite3.Connection

    def get(self, keys: Sequence[str]) -> dict[str, Kept]:
        """What is kept under these keys, without the raw answers."""
        found = {}
        with _worded(self.path):
            for start in range(0, len(keys), _AT_ONCE):
                some = keys[start : start + _AT_ONCE]
                rows = self.connection.execute(
                    "SELECT key, preference, said, input_tokens, output_tokens, calls "
                    f"FROM verdicts WHERE key IN ({','.join('?' * len(some))})",
                    some,
                )
                for key, preference, said, *counts in rows:
                    found[key] = Kept(preference, said, "", *counts)
        return found

    def put(self, key: str, kept: Kept, source: Source) -> Kept:
        """Make a verdict durable; returns what is kept, another process's where it was first."""
        row = (
            key, kept.preference, kept.said, kept.raw[:_RAW_CHARACTERS], kept.input_tokens,
            kept.output_tokens, kept.calls, source.model, source.base_url, source.template,
        )  # fmt: skip
        with _worded(self.path):
            done = self.connection.execute(
                "INSERT OR IGNORE INTO verdicts VALUES (?,?,?,?,?,?,?,?,?,?,datetime('now'))", row
            )
        return kept if done.rowcount else self.get([key])[key]

    def ability(self, base_url: str, model: str, ability: str) -> bool | None:
        """Whether an end point was found able to do something; None where nobody has tried."""
        with _worded(self.path):
            row = self.connection.execute(
                "SELECT has FROM end_points WHERE base_url = ? AND model = ? AND ability = ?",
                (base_url, model, ability),
            ).fetchone()
        return None if row is None else bool(row[0])

    def found_out(self, base_url: str, model: str, ability: str, *, has: bool) -> None:
        """Remember what an end point can do, so that an interrupted run goes on alike."""
        with _worded(self.path):
            self.connection.execute(
                "INSERT OR REPLACE INTO end_points VALUES (?,?,?,?)",
                (base_url, model, ability, int(has)),
            )

    def take(self, purse: str, process: str, amount: float, limit: float) -> bool:
        """Put `amount` down to a process's account if all accounts stay within the limit."""
        with _worded(self.path):
            done = self.connection.execute(
                "INSERT INTO purses SELECT ?1, ?2, ?3 WHERE ?3 + "
                "(SELECT coalesce(sum(amount), 0) FROM purses WHERE purse = ?1) <= ?4 "
                "ON CONFLICT DO UPDATE SET amount = amount + excluded.amount",
                (purse, process, amount, limit),
            )
        return done.rowcount > 0

    def give_back(self, purse: str, process: str, amount: float) -> None:
        """Take off an account what was put down and not spent (or put down what was overspent)."""
        with _worded(self.path):
            self.connection.execute(
                "UPDATE purses SET amount = amount - ? WHERE purse = ? AND process = ?",
                (amount, purse, process),
            )


@contextmanager
def open_cache(folder: Path) -> Iterator[VerdictCache]:
    """The cache of a folder, made where there is none; closed when the block ends.

    Raises:
        StoreError: the file cannot be made or read.
    """
    path = folder / FILE
    with _worded(path):
        folder.mkdir(parents=True, exist_ok=True)
    # SQLite waits for a lock, but not where a file begins to be in WAL mode or where the last
    # connection to it ends: there it fails at once.
    lock = FileLock(path.with_suffix(".lock"))
    with lock, _worded(path):
        connection = _connection(path)
    try:
        yield VerdictCache(path, connection)
    finally:
        with lock:
            connection.close()


def _connection(path: Path) -> sqlite3.Connection:
    """Every statement is its own transaction: durable when the call returns."""
    connection = sqlite3.connect(path, timeout=_SECONDS_FOR_A_LOCK, isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.executescript(_TABLES)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


@contextmanager
def _worded(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise StoreError(
            f"{path}: the judges' verdicts cannot be kept or read ({error}); is there room and the "
            "right to write? A damaged file may be moved away: its verdicts are then asked again"
        ) from error
