"""A judge behind an end point that fails: every verdict arrives, once, and the same as without."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from harness.contracts.judge import Versus
from harness.errors import HarnessError, RequestError
from harness.judge.asking.ask import EndPoint
from harness.judge.asking.crowd import UnansweredError
from harness.judge.asking.language_model import LanguageModel
from harness.judge.asking.patience import Patience
from harness.judge.asking.prices import Price
from harness.judge.asking.purse import Purse
from harness.judge.asking.template import load_template
from harness.judge.asking.tries import TRIES
from harness.judge.asking.verdict_cache import open_cache

from .judge_server import FAULTS, JudgeServer, judge_server

KEY = "sk-test-0123456789-secret"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def some(count: int, seed: int = 0) -> list[Versus]:
    draw = random.Random(seed)
    return [
        Versus(f"prompt {i}", "a" * draw.randint(1, 30) + f" {i}", "b" * draw.randint(1, 30))
        for i in range(count)
    ]


@contextmanager
def judge_at(
    url: str, folder: Path, *, price: Price | None = None, limit: float | None = None, **more: Any
) -> Iterator[LanguageModel]:
    point = EndPoint(url, "judge", timeout=more.pop("timeout", 2.0))
    retries = more.pop("retries", 8)
    with open_cache(folder) as cache:
        yield LanguageModel(
            point, load_template(more.pop("template", "answer-token")), more.pop("reading", "auto"),
            cache, Purse(more.pop("purse", "p"), "me", price, limit, cache),
            more.pop("concurrency", 16), Patience(retries, first=0.002, longest=0.05), **more,
        )  # fmt: skip


def expected(server: JudgeServer, versus: Sequence[Versus]) -> list[float]:
    return [server.rule(*one) for one in versus]


def preferences(readings: Sequence[Any]) -> list[Any]:
    return [reading.preference for reading in readings]


def test_a_preference_is_the_end_points(tmp_path: Path) -> None:
    versus = some(40)
    with judge_server() as server, judge_at(server.url, tmp_path) as judge:
        assert preferences(judge(versus)) == pytest.approx(expected(server, versus), abs=1e-9)
        assert judge.tally.reading["used"] == "logprobs"
        assert set(server.calls.values()) == {1}
        assert server.most_at_once <= 16


def test_what_fails_at_random_changes_nothing_and_loses_nothing(tmp_path: Path) -> None:
    versus = some(300)
    faults = dict.fromkeys(FAULTS, 0.3 / len(FAULTS))
    with judge_server() as server, judge_at(server.url, tmp_path / "calm") as judge:
        calm = judge(versus)
    with (
        judge_server(faults=faults, slow=9.0) as server,
        judge_at(server.url, tmp_path / "storm", timeout=3.0, concurrency=64) as judge,
    ):
        assert judge(versus) == calm
        assert set(server.injected) == set(FAULTS)
        assert set(server.answered.values()) == {1}, "judged once, and not after it was durable"
        assert len(server.answered) == 300
        assert sum(judge.tally.failures.values()) >= 60
        calls = sum(server.calls.values())
        assert judge(versus) == calm
        assert sum(server.calls.values()) == calls
        assert (judge.tally.asked, judge.tally.cached) == (300, 300)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_call_that_fails_twice_in_this_way_is_made_a_third_time(
    tmp_path: Path, fault: str
) -> None:
    versus = some(3)
    script = lambda content, call: fault if call < 2 and "prompt 1" in content else None  # noqa: E731
    with (
        judge_server(script=script, slow=3.0) as server,
        judge_at(server.url, tmp_path, timeout=0.3) as judge,
    ):
        assert preferences(judge(versus)) == pytest.approx(expected(server, versus))
        assert sorted(server.calls.values()) == [1, 1, 3]


def test_an_end_point_is_waited_for_as_long_as_it_asks(tmp_path: Path) -> None:
    script = lambda content, call: "429" if call == 0 else None  # noqa: E731
    with (
        judge_server(script=script, retry_after=0.4) as server,
        judge_at(server.url, tmp_path) as judge,
    ):
        start = time.monotonic()
        judge(some(1))
        assert time.monotonic() - start >= 0.4  # a lower bound: no machine is too slow for it


def test_a_wait_of_hours_is_not_waited_for(tmp_path: Path) -> None:
    with (
        judge_server(faults={"429": 1.0}, retry_after=7200) as server,
        judge_at(server.url, tmp_path) as judge,
        pytest.raises(UnansweredError, match="asks to wait 7200 s"),
    ):
        judge(some(5))
    assert sum(server.calls.values()) == 1


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"key": "another-key"}, "does not take the key .401.: set OPENAI_API_KEY"),
        ({"status": 403}, "does not take the key .403."),
        ({"model": "other"}, "has no model 'judge'.*judge.model and judge.base_url"),
        ({"status": 405}, "refuses to answer .405."),
    ],
)
@pytest.mark.parametrize("reading", ["auto", "text"])
def test_what_no_retry_can_mend_stops_at_the_first_call(
    tmp_path: Path, settings: dict[str, Any], words: str, reading: str
) -> None:
    with (
        judge_server(**settings) as server,
        judge_at(server.url, tmp_path, reading=reading) as judge,
        pytest.raises(RequestError, match=words),
    ):
        judge(some(50))
    assert sum(server.calls.values()) == 1


def test_a_key_that_stops_working_stops_the_rest(tmp_path: Path) -> None:
    with judge_server() as server, judge_at(server.url, tmp_path, concurrency=4) as judge:
        judge(some(10))
        server.status = 401
        with pytest.raises(RequestError, match="does not take the key"):
            judge(some(60))
        assert sum(server.calls.values()) <= 10 + 4
        server.status = None
        judge(some(60))
        assert judge.tally.asked == 60


def test_a_key_that_stops_working_among_many_calls_is_said_in_words(tmp_path: Path) -> None:
    versus = some(80)

    def script(content: str, call: int) -> None:
        if sum(server.calls.values()) > 20:
            server.status = 401

    with judge_server(script=script) as server, judge_at(server.url, tmp_path) as judge:
        with pytest.raises(RequestError, match="does not take the key"):
            judge(versus)
        assert sum(server.calls.values()) < 60
        server.status, server.script = None, None
        judge(versus)
        assert judge.tally.asked == 80


def test_an_end_point_that_is_away_is_a_sentence_and_not_a_traceback(tmp_path: Path) -> None:
    with judge_server() as server:
        url = server.url
    with (
        judge_at(url, tmp_path, retries=2) as judge,
        pytest.raises(UnansweredError, match="does not answer: connection"),
    ):
        judge(some(5))


def test_an_end_point_that_dies_in_the_middle_keeps_what_it_said(tmp_path: Path) -> None:
    versus, limit = some(60), 20
    answered: list[str] = []

    def script(content: str, call: int) -> str | None:
        if len(answered) >= limit:
            return "500"
        answered.append(content)
        return None

    with judge_server(script=script) as server:
        with (
            judge_at(server.url, tmp_path, retries=1, concurrency=4) as judge,
            pytest.raises(UnansweredError, match=r"40 of 60 comparisons have no verdict.*same c"),
        ):
            judge(versus)
        calls = sum(server.calls.values())
        assert calls < limit + 30, "it goes on asking an end point that is down"
        server.script = lambda content, call: None
        with judge_at(server.url, tmp_path) as judge:
            assert preferences(judge(versus)) == pytest.approx(expected(server, versus))
        assert sum(server.calls.values()) == calls + 40


def test_nonsense_is_unreadable_after_a_declared_number_of_tries(tmp_path: Path) -> None:
    with judge_server(nonsense=True) as server, judge_at(server.url, tmp_path) as judge:
        readings = judge(some(5))
        assert [(r.preference, r.said) for r in readings] == [(None, "I")] * 5
        # The first question was also the one that told whether log-probabilities are given.
        assert sorted(server.calls.values()) == [TRIES] * 4 + [TRIES + 1]
        assert judge(some(5)) == readings
        assert sum(server.calls.values()) == 5 * TRIES + 1, "an unreadable answer is kept too"


@pytest.mark.parametrize("fault", ["empty", "no-logprobs"])
def test_one_question_that_never_gets_an_answer_does_not_hold_up_the_rest(
    tmp_path: Path, fault: str
) -> None:
    script = lambda content, call: fault if "prompt 3" in content else None  # noqa: E731
    with (
        judge_server(script=script) as server,
        judge_at(server.url, tmp_path, retries=2) as judge,
    ):
        readings = judge(some(6))
        assert [reading.preference is None for reading in readings] == [False] * 3 + [True] + [
            False
        ] * 2
        assert readings[3].said in ("(an answer without a choice)", "(no log-probabilities)")


def test_an_end_point_without_log_probabilities_is_read_as_text(tmp_path: Path) -> None:
    versus = some(30)
    with judge_server(logprobs=False) as server, judge_at(server.url, tmp_path) as judge:
        found = preferences(judge(versus))
        assert found == [float(wins >= 0.5) for wins in expected(server, versus)]
        assert judge.tally.reading == {
            "used": "text", "why": "the end point ignores log-probabilities: text was read",
        }  # fmt: skip
        assert "logprobs" not in server.bodies[-1]
        calls = sum(server.calls.values())
    with judge_server(logprobs=False) as other, judge_at(server.url, tmp_path) as judge:
        assert preferences(judge(versus)) == found
        assert sum(other.calls.values()) == 0
        assert sum(server.calls.values()) == calls


def test_log_probabilities_that_are_wanted_and_not_given_are_an_error(tmp_path: Path) -> None:
    with (
        judge_server(logprobs=False) as server,
        judge_at(server.url, tmp_path, reading="logprobs") as judge,
        pytest.raises(RequestError, match=r"gives no log-probabilities for 'judge'.*text"),
    ):
        judge(some(5))
    assert sum(server.calls.values()) <= 3


def test_one_answer_without_log_probabilities_does_not_make_a_judge_of_text(tmp_path: Path) -> None:
    script = lambda content, call: "no-logprobs" if call == 0 else None  # noqa: E731
    with judge_server(script=script) as server, judge_at(server.url, tmp_path) as judge:
        judge(some(5))
        assert judge.tally.reading["used"] == "logprobs"


def test_a_model_that_refuses_log_probabilities_is_read_as_text(tmp_path: Path) -> None:
    refusals = {"logprobs": "'logprobs' is not supported with this model"}
    with judge_server(refusals=refusals) as server, judge_at(server.url, tmp_path) as judge:
        assert None not in preferences(judge(some(5)))
        assert judge.tally.reading["used"] == "text"


def test_a_model_that_wants_another_name_for_the_limit_of_tokens_gets_it(tmp_path: Path) -> None:
    refusals = {"max_tokens": "Unsupported parameter: use 'max_completion_tokens' instead."}
    with judge_server(refusals=refusals) as server, judge_at(server.url, tmp_path) as judge:
        assert None not in preferences(judge(some(5)))
        assert server.bodies[-1]["max_completion_tokens"] == 1


def test_a_request_that_is_never_right_says_what_the_end_point_said(tmp_path: Path) -> None:
    refusals = {"temperature": "temperature must be 1 for this model"}
    with (
        judge_server(refusals=refusals) as server,
        judge_at(server.url, tmp_path) as judge,
        pytest.raises(RequestError, match=r"refuses to answer.*temperature must be 1"),
    ):
        judge(some(50))
    assert sum(server.calls.values()) == 3


def test_what_is_refused_holds_up_nothing_and_does_not_stop_who_goes_on(tmp_path: Path) -> None:
    versus = some(12)

    def refuse(content: str) -> str | None:
        return "too long" if any(f"prompt {i}\n" in content for i in (5, 6, 7, 8)) else None

    with judge_server(refuse=refuse) as server:
        with judge_at(server.url, tmp_path) as judge:
            found = judge(versus)
            assert [r.preference is None for r in found] == [5 <= i <= 8 for i in range(12)]
            assert found[6].said == "refused (400): too long"
            assert judge.tally.refused == 4
        calls = sum(server.calls.values())
        with judge_at(server.url, tmp_path) as judge:
            assert judge(versus) == found
        # After three in a row and at the end an answered question tells whose fault it is.
        assert sum(server.calls.values()) == calls + 4 + 2


def test_a_server_of_this_machine_is_reached_past_a_proxy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with judge_server() as server, judge_at(server.url, tmp_path, retries=0) as judge:
        assert None not in preferences(judge(some(3)))


def test_five_grades_are_read_from_text_whatever_the_end_point_can(tmp_path: Path) -> None:
    versus = [Versus("p", "a" * n, "b" * 30) for n in (1, 25, 27, 31, 90)]
    with (
        judge_server() as server,
        judge_at(server.url, tmp_path, template="five-grade") as judge,
    ):
        found = preferences(judge(versus))
        assert found == pytest.approx([1 / 3 if w <= 0.4 and w > 0.1 else w for w in found])
        assert found == sorted(found)
        assert {0.0, 1.0} < set(found)
        assert server.bodies[-1]["max_tokens"] == 2048


def test_equal_questions_are_asked_once(tmp_path: Path) -> None:
    with judge_server() as server, judge_at(server.url, tmp_path) as judge:
        assert len({r.preference for r in judge(some(1) * 7)}) == 1
        assert sum(server.calls.values()) == 1


def test_asking_again_looks_at_no_first_answer_and_is_kept_itself(tmp_path: Path) -> None:
    versus = some(8)
    with judge_server() as server, judge_at(server.url, tmp_path) as judge:
        judge(versus)
        judge.again()(versus)
        assert set(server.calls.values()) == {2}
        assert judge.tally.new_tokens["output"] == 16
        judge.again()(versus)
        assert set(server.calls.values()) == {2}


def test_the_limit_of_cost_is_never_passed_and_the_same_command_goes_on(tmp_path: Path) -> None:
    price, versus = Price(1000.0, 1000.0), some(120)
    with judge_server() as server:
        with judge_at(server.url, tmp_path / "whole", price=price) as judge:
            judge(versus)
            whole = judge.purse.spent
        assert whole == pytest.approx(price.of(*judge.tally.new_tokens.values()))
        limit, words = 0.4 * whole, []
        while len(words) < 9:
            with judge_at(
                server.url, tmp_path / "parts", price=price, limit=limit, purse=f"{len(words)}"
            ) as judge:
                try:
                    judge(versus)
                    break
                except HarnessError as error:
                    words.append(str(error))
                finally:
                    assert judge.purse.spent <= limit
                assert judge.purse.spent > 0.7 * limit, "it stops far from the limit"
        assert 2 <= len(words) <= 3
        assert all(f"the limit of {limit:g} USD" in word for word in words)
        assert "of 120 comparisons have no verdict; they would cost about" in words[0]
        assert set(server.calls.values()) == {2}


def test_a_call_that_failed_holds_no_money_back(tmp_path: Path) -> None:
    price, versus = Price(1000.0, 1000.0), some(40)
    with judge_server() as server, judge_at(server.url, tmp_path / "calm", price=price) as judge:
        judge(versus)
        whole = judge.purse.spent
    script = lambda content, call: "500" if call < 3 else None  # noqa: E731
    with (
        judge_server(script=script) as server,
        judge_at(server.url, tmp_path, price=price, limit=1.6 * whole, concurrency=2) as judge,
    ):
        assert None not in preferences(judge(versus))
        assert judge.purse.spent == pytest.approx(whole)


def test_a_limit_that_two_judges_share_is_one_limit(tmp_path: Path) -> None:
    price, versus = Price(1000.0, 1000.0), some(60)
    with judge_server() as server:
        with judge_at(server.url, tmp_path / "whole", price=price) as judge:
            judge(versus)
            whole = judge.purse.spent
        spent = 0.0
        for part in (versus[:30], versus[30:]):
            with (
                judge_at(server.url, tmp_path / "parts", price=price, limit=0.7 * whole) as judge,
            ):
                with suppress(UnansweredError):
                    judge(part)
                spent += judge.purse.spent
        assert 0.4 * whole < spent <= 0.7 * whole


def test_no_key_is_ever_written_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    caplog.set_level(0)
    errors = []
    for settings in (
        {"key": KEY}, {"key": "other"}, {"status": 400}, {"status": 500}, {"model": "other"},
        {"key": KEY, "rule": lambda *_: 0.5, "refusals": {"logprobs": f"no logprobs for {KEY}"}},
    ):  # fmt: skip
        with judge_server(**settings) as server:
            if settings.get("status") == 400:
                server.status, server.refusals = None, {"model": f"bad request with {KEY}"}
            with judge_at(server.url, tmp_path, retries=1) as judge:
                try:
                    judge(some(4))
                except HarnessError as error:
                    errors.append(str(error))
                errors.append(str(judge) + str(judge.facts()))
    assert len(errors) >= 9
    secret = KEY[6:]
    assert not any(secret in error for error in errors)
    assert secret not in caplog.text
    assert secret not in "".join(capfd.readouterr())
    for file in tmp_path.rglob("*"):
        assert secret.encode() not in file.read_bytes(), file
