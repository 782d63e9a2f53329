"""What an answer means: the published judge's stored rows, and texts of every kind."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import pytest

from harness.judge.asking.answers import Token, from_grade, from_logprobs, from_token
from harness.judge.asking.reply import PassingError, read_answer
from harness.judge.asking.template import load_template

GRADES = load_template("five-grade").labels


def test_every_stored_row_of_alpacaeval_is_met(shared: Path) -> None:
    """`pref` is 1 to 2 for the model; where `switched`, the model's answer was shown as m."""
    met = 0
    file = shared / "data" / "alpaca-eval-lc" / "annotations_weighted.jsonl.gz"
    for line in gzip.decompress(file.read_bytes()).splitlines():
        row = json.loads(line)
        if row["lp_m"] is None and row["lp_M"] is None:
            continue
        top = [Token(t, row[f"lp_{t}"]) for t in ("m", "M") if row[f"lp_{t}"] is not None]
        first = from_logprobs(top, ("m", "M"))
        assert first is not None
        assert 1 + (first if row["switched"] else 1 - first) == pytest.approx(row["pref"], abs=1e-9)
        met += 1
    assert met == 20_869


def test_a_label_that_is_not_among_the_tokens_has_no_probability() -> None:
    assert from_logprobs([Token("m", -3.0), Token("x", -0.1)], ("m", "M")) == 1
    assert from_logprobs([Token("M", -3.0)], ("m", "M")) == 0
    assert from_logprobs([Token("M", -math.inf), Token("m", -20.0)], ("m", "M")) == 1
    assert from_logprobs([Token("Me", -0.1)], ("m", "M")) is None
    assert from_logprobs([], ("m", "M")) is None


def test_tokens_that_differ_in_spaces_are_one_label() -> None:
    top = [Token("m", math.log(0.2)), Token(" m", math.log(0.1)), Token("M", math.log(0.1))]
    assert from_logprobs(top, ("m", "M")) == pytest.approx(0.75)


def test_probabilities_are_exact_in_the_tails() -> None:
    top = [Token("m", 0.0), Token("M", -800.0)]
    assert from_logprobs(top, ("m", "M")) == 1
    assert from_logprobs(top, ("M", "m")) == 0
    top = [Token("m", -0.0), Token("M", -40.0)]
    assert from_logprobs(top, ("M", "m")) == pytest.approx(math.exp(-40), rel=1e-12)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("m", 1.0), (" M\n", 0.0), ('"m"', 1.0), ("(M).", 0.0), ("**m**", 1.0),
        ("", None), ("mM", None), ("m or M", None), ("I think m", None), ("a", None),
    ],
)  # fmt: skip
def test_a_token_is_read_only_where_nothing_else_is_said(text: str, meant: float | None) -> None:
    assert from_token(text, {"m": 1.0, "M": 0.0}) == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("A is good.\nMy grade: [[A>>B]]", 1.0), ("[[B>A]]", 1 / 3), ("[[A=B]] so [[A=B]]", 0.5),
        ("[[A>B]] or rather [[B>A]]", None), ("A>>B", None), ("[A>>B]", None), ("", None),
    ],
)  # fmt: skip
def test_a_grade_is_read_where_one_is_given_and_no_other(text: str, meant: float | None) -> None:
    assert from_grade(text, GRADES) == (None if meant is None else pytest.approx(meant))


def test_a_label_within_a_longer_one_is_not_read() -> None:
    labels = {"A": 1.0, "AB": 0.0}
    assert from_grade("AB", labels) == 0.0


def body(content: object = "m", **choice: object) -> str:
    message = {"role": "assistant", "content": content}
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop", **choice}]})


@pytest.mark.parametrize(
    "text",
    [
        "", "{", "[]", "null", '{"choices": []}', '{"choices": [{}]}', '{"error": "busy"}',
        '{"choices": null}', '{"choices": [{"message": {"content": ["m"]}}]}',
    ],
)  # fmt: skip
def test_a_body_that_says_nothing_is_asked_for_again(text: str) -> None:
    with pytest.raises(PassingError):
        read_answer(text)


@pytest.mark.parametrize(
    "logprobs",
    [
        None, {}, {"content": None}, {"content": []}, {"content": [{"top_logprobs": []}]},
        {"content": [{"top_logprobs": [{"token": "m", "logprob": None}]}]},
        {"content": [{"top_logprobs": [{"token": "m", "logprob": math.nan}]}]},
        {"content": [{"top_logprobs": [{"token": "m", "logprob": 7.0}]}]},
    ],
)  # fmt: skip
def test_what_is_no_log_probability_is_none(logprobs: object) -> None:
    answer = read_answer(body(logprobs=logprobs))
    assert answer.top is None
    assert answer.text == "m"


def test_an_answer_without_words_or_counts_is_an_answer() -> None:
    answer = read_answer(body(None, finish_reason="content_filter"))
    assert (answer.text, answer.tokens, answer.ended) == ("", None, "content_filter")
