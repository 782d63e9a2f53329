"""A judge whose end point misbehaves for good: no money, poisoned questions, hostile answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.errors import RequestError
from harness.judge.asking.crowd import UnansweredError
from harness.judge.asking.prices import Price
from harness.judge.asking.template import load_template

from .judge_server import JudgeServer, judge_server
from .test_judge_calls import KEY, expected, judge_at, preferences, some


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def test_a_limit_is_not_reached_by_what_calls_on_their_way_may_cost(tmp_path: Path) -> None:
    price, versus = Price(0.0, 1000.0), some(60)
    with judge_server(latency=0.02) as server:
        one = price.of(0, 1)
        most = price.of(0, load_template("five-grade").max_tokens)
        with judge_at(
            server.url, tmp_path, price=price, limit=2.5 * most, template="five-grade"
        ) as judge:
            assert None not in preferences(judge(versus))
            assert judge.purse.spent == pytest.approx(60 * one)
        assert server.most_at_once == 2, "more calls at once than there is money for"


def test_what_verdicts_cost_is_said_where_some_are_missing_too(tmp_path: Path) -> None:
    price, versus = Price(1000.0, 1000.0), some(60)
    with judge_server() as server, judge_at(server.url, tmp_path / "whole", price=price) as judge:
        judge(versus)
        limit = 0.5 * judge.purse.spent
    with (
        judge_server() as server,
        judge_at(server.url, tmp_path, price=price, limit=limit) as judge,
    ):
        with pytest.raises(UnansweredError, match=r"judge.max_cost"):
            judge(versus)
        cost = judge.facts()["cost"]
        assert cost["all"] == pytest.approx(cost["new"])
        assert cost["all"] > 0.7 * limit


def billing(words: str, after: int, server: JudgeServer) -> Any:
    """Refuses everything once so many calls were answered."""
    return lambda content: words if sum(server.answered.values()) >= after else None


@pytest.mark.parametrize("concurrency", [1, 4, 16])
def test_a_judge_that_refuses_all_of_a_sudden_leaves_no_verdict_unread(
    tmp_path: Path, concurrency: int
) -> None:
    versus = some(50)
    with judge_server() as server:
        server.refuse = billing("billing limit", 20, server)
        with (
            judge_at(server.url, tmp_path, concurrency=concurrency) as judge,
            pytest.raises(UnansweredError, match=r"30 of 50 .* no verdict.*billing limit"),
        ):
            judge(versus)
        assert sum(server.calls.values()) <= 20 + 4 * max(concurrency, 3)
        assert judge.facts()["refused"] == 0
        server.refuse = lambda content: None
        with judge_at(server.url, tmp_path) as judge:
            assert preferences(judge(versus)) == pytest.approx(expected(server, versus))


def test_the_last_questions_that_are_refused_are_doubted_too(tmp_path: Path) -> None:
    with judge_server() as server, judge_at(server.url, tmp_path) as judge:
        server.refuse = billing("billing limit", 9, server)
        with pytest.raises(UnansweredError, match="1 of 10 comparisons have no verdict"):
            judge(some(10))


@pytest.mark.parametrize("code", ["billing_hard_limit_reached", "insufficient_quota"])
def test_a_key_without_money_stops_the_rest_at_once(tmp_path: Path, code: str) -> None:
    with judge_server(refuse_code=code) as server, judge_at(server.url, tmp_path) as judge:
        server.refuse = billing("limit", 20, server)
        with pytest.raises(RequestError, match=r"money or quota is used up .400: limit."):
            judge(some(60))
        assert sum(server.calls.values()) <= 20 + 16
        server.refuse = lambda content: None
        assert None not in preferences(judge(some(60)))
        assert judge.tally.asked == 60


def test_a_code_of_any_kind_is_no_traceback(tmp_path: Path) -> None:
    with (
        judge_server(refuse_code={"a": []}, refuse=lambda content: "no") as server,
        judge_at(server.url, tmp_path) as judge,
        pytest.raises(RequestError, match="refuses to answer"),
    ):
        judge(some(5))


@pytest.mark.parametrize("concurrency", [1, 16])
@pytest.mark.parametrize("bad", [(0,), (0, 1), (5,), (2, 3, 4, 5), (19,)])
@pytest.mark.parametrize("reading", ["auto", "text"])
def test_questions_that_break_the_server_do_not_hold_up_the_rest(
    tmp_path: Path, concurrency: int, bad: tuple[int, ...], reading: str
) -> None:
    versus = some(20)
    poison = lambda content, call: "500" if any(f"prompt {i}\n" in content for i in bad) else None  # noqa: E731
    with judge_server(script=poison) as server:
        with judge_at(
            server.url, tmp_path, retries=1, concurrency=concurrency, reading=reading
        ) as judge:
            readings = judge(versus)
            assert [i for i, r in enumerate(readings) if r.preference is None] == list(bad)
            assert readings[bad[0]].said == "(failed: status 500)"
            assert judge.facts()["failed"] == len(bad)
        server.script = lambda content, call: None
        with judge_at(server.url, tmp_path, reading=reading) as judge:
            assert None not in preferences(judge(versus)), "a failure was kept"
            assert judge.tally.asked == len(bad)


def test_a_server_that_breaks_at_the_last_question_is_no_fault_of_the_question(
    tmp_path: Path,
) -> None:
    with judge_server() as server, judge_at(server.url, tmp_path, retries=1) as judge:
        server.script = lambda content, call: "500" if sum(server.answered.values()) >= 9 else None
        with pytest.raises(UnansweredError, match="1 of 10 comparisons have no verdict"):
            judge(some(10))


def swapped(old: str, new: str) -> Any:
    return lambda body: body.replace(old, new)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"prompt_tokens": ', '"prompt_tokens": 1e999, "x": '),
        ('"prompt_tokens": ', f'"prompt_tokens": {"9" * 30}, "x": '),
        ('"prompt_tokens": ', '"prompt_tokens": -5000000, "x": '),
        ('"completion_tokens": ', '"completion_tokens": -1, "x": '),
        ('"prompt_tokens": ', '"prompt_tokens": NaN, "x": '),
    ],
)
def test_a_count_of_tokens_that_is_none_is_not_counted(tmp_path: Path, old: str, new: str) -> None:
    price, versus = Price(1000.0, 1000.0), some(5)
    with (
        judge_server(body=swapped(old, new)) as server,
        judge_at(server.url, tmp_path, price=price, limit=1e6) as judge,
    ):
        assert preferences(judge(versus)) == pytest.approx(expected(server, versus))
        assert judge.facts()["cost"]["calls_without_usage"] == 5
        assert judge.purse.spent > 0
        assert judge.tally.tokens.total() == 0


def test_a_log_probability_beyond_all_numbers_is_none(tmp_path: Path) -> None:
    body = swapped('"logprob": -', f'"logprob": -{"9" * 400}, "x": -')
    with judge_server(body=body) as server, judge_at(server.url, tmp_path) as judge:
        assert None not in preferences(judge(some(5)))
        assert judge.tally.reading["used"] == "text"


@pytest.mark.parametrize("where", ['"content": "', '"finish_reason": "'])
def test_half_a_character_is_kept_as_a_question_mark(tmp_path: Path, where: str) -> None:
    body = lambda text: text.replace(where, where + "\\ud83d")  # noqa: E731
    with (
        judge_server(body=body, nonsense=True) as server,
        judge_at(server.url, tmp_path, reading="text") as judge,
    ):
        for reading in judge(some(3)):
            assert reading.said in ("?I", "I")
    with judge_server() as server:
        server.refuse = lambda content: "too \ud83d long"
        with (
            judge_at(server.url, tmp_path) as judge,
            pytest.raises(RequestError, match=r"too \? long"),
        ):
            judge(some(3))


def test_brackets_without_end_are_malformed(tmp_path: Path) -> None:
    with (
        judge_server(body=lambda text: "[" * 200_000) as server,
        judge_at(server.url, tmp_path, retries=1) as judge,
        pytest.raises(UnansweredError, match="malformed JSON"),
    ):
        judge(some(3))


@pytest.mark.parametrize("length", range(296 - len(KEY), 300, 5))
def test_no_part_of_a_key_is_left_where_words_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with (
        judge_server(refuse=lambda content: "y" * length + f" {KEY} and so on") as server,
        judge_at(server.url, tmp_path) as judge,
        pytest.raises(RequestError, match="refuses to answer") as error,
    ):
        judge(some(3))
    assert KEY[:5] not in str(error.value)
    assert len(str(error.value)) < 400
