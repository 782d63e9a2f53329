"""Verdicts outlive the process that asked, whatever ends it, and are shared by all that ask."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from harness.errors import RequestError, StoreError
from harness.judge.asking.prices import Price, load_price
from harness.judge.asking.verdict_cache import FILE, Kept, Source, open_cache, question_key

from .judge_server import JudgeServer, judge_server
from .test_judge_calls import judge_at, some

ROOT = Path(__file__).parents[1]
WHO = Source("http://127.0.0.1/v1", "judge", "summary")
ASKING = """
import sys
from pathlib import Path
from tests.test_judge_calls import judge_at, some
with judge_at(sys.argv[1], Path(sys.argv[2]), concurrency=4) as judge:
    print("asking", flush=True)
    print(judge(some(60))[7].preference, judge.tally.asked)
"""
WRITING = """
import sys
from pathlib import Path
from harness.judge.asking.verdict_cache import Kept, Source, open_cache
mine = int(sys.argv[2])
with open_cache(Path(sys.argv[1])) as cache:
    for row in range(200):
        kept = cache.put(f"key {row}", Kept(mine / 10, str(mine)), Source("u", "m", "t"))
        print(row, kept.said)
"""


def start(code: str, *args: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, args)], cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if not k.startswith("OPENAI_")},
    )  # fmt: skip


def wait_for_calls(server: JudgeServer, count: int, process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while sum(server.answered.values()) < count and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.005)


def test_a_verdict_is_kept_with_what_it_cost_and_what_was_said(tmp_path: Path) -> None:
    with open_cache(tmp_path) as cache:
        cache.put("a", Kept(0.25, "m", '{"raw": 1}', 10, 2, 3), WHO)
        cache.put("b", Kept(None, "I think"), WHO)
    with open_cache(tmp_path) as cache:
        found = cache.get(["b", "a", "none"])
        assert found == {"a": Kept(0.25, "m", "", 10, 2, 3), "b": Kept(None, "I think")}
    with closing(sqlite3.connect(tmp_path / FILE)) as file:
        rows = file.execute("SELECT raw, model FROM verdicts").fetchall()
    assert rows == [('{"raw": 1}', "judge"), ("", "judge")]


def test_the_first_verdict_stays(tmp_path: Path) -> None:
    with open_cache(tmp_path) as cache, open_cache(tmp_path) as other:
        assert cache.put("a", Kept(0.25, "first"), WHO).said == "first"
        assert other.put("a", Kept(0.75, "second"), WHO) == Kept(0.25, "first")


def test_thousands_of_keys_are_read_at_once(tmp_path: Path) -> None:
    with open_cache(tmp_path) as cache:
        for row in range(1201):
            cache.put(f"k{row}", Kept(row / 1201, ""), WHO)
        found = cache.get([f"k{row}" for row in reversed(range(1201))])
        assert [found[f"k{row}"].preference for row in range(1201)] == [
            row / 1201 for row in range(1201)
        ]


@pytest.mark.parametrize("name", ["base_url", "model", "template", "temperature", "repeat"])
def test_whatever_moves_an_answer_is_in_its_key(name: str) -> None:
    parts: dict[str, object] = {
        "base_url": "u", "model": "m", "template": "t", "temperature": 0.0, "repeat": 0
    }  # fmt: skip
    message = [{"role": "user", "content": "a"}]
    key = question_key(parts, message)
    assert question_key(parts, [{"role": "user", "content": "b"}]) != key
    assert question_key({**parts, name: 7}, message) != key
    assert question_key(dict(reversed(parts.items())), message) == key


def test_the_order_of_the_answers_is_in_the_key(tmp_path: Path) -> None:
    with judge_server() as server, judge_at(server.url, tmp_path) as judge:
        (one,) = some(1)
        turned = one._replace(first=one.second, second=one.first)
        first, second = (reading.preference for reading in judge([one, turned]))
        assert first is not None
        assert second is not None
        assert first + second > 1.05, "the server favours what is shown first"


def test_processes_that_write_the_same_keys_agree_on_one_verdict(tmp_path: Path) -> None:
    writers = [start(WRITING, tmp_path, mine) for mine in range(4)]
    outputs = [writer.communicate(timeout=120) for writer in writers]
    assert [writer.returncode for writer in writers] == [0] * 4, outputs
    with open_cache(tmp_path) as cache:
        kept = cache.get([f"key {row}" for row in range(200)])
    wanted = "".join(f"{row} {kept[f'key {row}'].said}\n" for row in range(200))
    assert [out for out, _ in outputs] == [wanted] * 4


def test_after_kill_9_only_what_is_missing_is_asked_for(tmp_path: Path) -> None:
    with judge_server(latency=0.03) as server:
        process = start(ASKING, server.url, tmp_path)
        wait_for_calls(server, 20, process)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        server.latency = 0.0
        with closing(sqlite3.connect(tmp_path / FILE)) as rows:
            (durable,) = rows.execute("SELECT count(*) FROM verdicts").fetchone()
        assert 15 <= durable < 60
        before = sum(server.calls.values())
        again = start(ASKING, server.url, tmp_path)
        out, err = again.communicate(timeout=120)
        assert again.returncode == 0, err
        assert sum(server.calls.values()) - before == 60 - durable
        assert out.split()[1:] == [repr(server.rule(*some(8)[7])), str(60 - durable)]
        # Only calls that were under way when the process ended were made twice.
        assert sum(server.calls.values()) <= 60 + 4


def test_two_processes_that_ask_the_same_store_one_verdict_each(tmp_path: Path) -> None:
    with judge_server(latency=0.01) as server:
        both = [start(ASKING, server.url, tmp_path) for _ in range(2)]
        outputs = [process.communicate(timeout=120) for process in both]
        assert [process.returncode for process in both] == [0, 0], outputs
        assert len({out.split()[1] for out, _ in outputs}) == 1
        assert max(server.calls.values()) <= 2
    with closing(sqlite3.connect(tmp_path / FILE)) as rows:
        assert rows.execute("SELECT count(*) FROM verdicts").fetchone() == (60,)


def test_many_may_open_and_close_a_new_file_at_once(tmp_path: Path) -> None:
    def often(number: int) -> int:
        for turn in range(25):
            with open_cache(tmp_path / str(turn)) as cache:
                assert cache.take("p", str(number), 1.0, 100.0)
        return number

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(often, range(8))) == list(range(8))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"no database" * 100)
    words = rf"{FILE}: the judges' verdicts.*moved away"
    with pytest.raises(StoreError, match=words), open_cache(tmp_path):
        pass


def test_a_limit_is_shared_by_all_that_take_from_it(tmp_path: Path) -> None:
    with open_cache(tmp_path) as cache, open_cache(tmp_path) as other:
        assert cache.take("p", "me", 6.0, 10.0)
        assert not other.take("p", "you", 5.0, 10.0)
        assert other.take("another", "you", 5.0, 10.0)
        cache.give_back("p", "me", 2.0)
        assert other.take("p", "you", 5.0, 10.0)
        assert not cache.take("p", "me", 2.0, 10.0)
        assert cache.take("p", "me", 1.0, 10.0)


PRICES = """
judge = {input = 2.5, output = 10.0}
"local/other" = {input = 0, output = 0, currency = "EUR"}
"""


def test_a_price_is_for_a_million_tokens(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text(PRICES)
    price = load_price(str(tmp_path / "prices.toml"), "judge")
    assert price == Price(2.5, 10.0, "USD")
    assert price.of(400_000, 100_000) == pytest.approx(2.0)
    assert load_price(str(tmp_path / "prices.toml"), "local/other").currency == "EUR"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("judg = {input = 1, output = 1}", "did you mean 'judg'"),
        ("judge = 7", "must be a table"),
        ("judge = {input = 1}", "'output' must be the price of a million tokens"),
        ("judge = {input = -1, output = 1}", "'input' must be"),
        ("judge = {input = true, output = 1}", "'input' must be"),
        ("judge = {input = nan, output = 1}", "'input' must be"),
        ("judge = {input = 1, output = 1, curency = 'USD'}", "did you mean 'currency'"),
        ("judge = {input = 1, output = 1, currency = 1}", "'currency' must be a word"),
        ("judge = {", "cannot be read"),
    ],
)
def test_a_price_table_that_is_none_says_why(tmp_path: Path, line: str, words: str) -> None:
    (tmp_path / "prices.toml").write_text(line)
    with pytest.raises(RequestError, match=words):
        load_price(str(tmp_path / "prices.toml"), "judge")
