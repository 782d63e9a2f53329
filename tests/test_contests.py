"""Contests in the pipeline: which stages are made, what moves their keys, what becomes of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.config import make_experiment
from harness.errors import RequestError
from harness.estimate import call_tokens, calls
from harness.gather import _status
from harness.pipeline.plan import Plan, plan
from harness.store.stage import Stage
from harness.store.store import Store

from .command import environment, harness

SERVED = {"judge.model": "m", "judge.kind": "openai", "judge.base_url": "http://127.0.0.1:9/v1"}


def lay_out(tasks: str = "summarization", **keys: Any) -> Plan:
    given = {"methods": "dpo", "tasks": tasks, "seeds": 1, "budget.preset": "smoke"}
    given |= {key.replace("__", "."): value for key, value in keys.items()}
    return plan(make_experiment(given, known_tasks=[], plugin_name=lambda name: name))


def of(laid_out: Plan, verb: str) -> list[Stage]:
    return [stage for stage in laid_out.stages if stage.verb == verb]


def keys(laid_out: Plan, verb: str) -> set[str]:
    return {stage.key for stage in of(laid_out, verb)}


def test_only_tasks_that_compare_answers_have_a_judge() -> None:
    assert not of(lay_out("sentiment-high"), "judge")
    assert len(of(lay_out("summarization"), "judge")) == 2
    assert len(of(lay_out("alpacaeval"), "judge")) == 2


def test_the_sweep_is_generated_once_and_pairs_are_drawn_at_one_temperature() -> None:
    laid_out = lay_out()
    for stage in of(laid_out, "generate"):
        assert stage.settings["decoding"]["temperatures"] == [0.0, 0.25, 0.5, 0.75, 1.0]
        assert stage.settings["logprobs"]
    (sample,) = of(laid_out, "sample")
    assert sample.settings["decoding"]["temperatures"] == [1.0]
    cold = lay_out(summarization__temperatures="0,0.5")
    assert not any(stage.settings["logprobs"] for stage in of(cold, "generate"))


def test_another_judge_judges_again_and_trains_and_writes_nothing_again() -> None:
    rule, served = lay_out(), lay_out(**SERVED)
    assert keys(rule, "generate") == keys(served, "generate")
    assert keys(rule, "train") == keys(served, "train")
    assert not keys(rule, "judge") & keys(served, "judge")
    assert not keys(rule, "score") & keys(served, "score")


@pytest.mark.parametrize(
    ("key", "value"),
    [("model", "other"), ("reading", "text"), ("temperature", 0.5), ("template", "answer-token"),
     ("base_url", "http://127.0.0.1:8/v1"), ("retest", 0.1)],
)  # fmt: skip
def test_what_moves_a_verdict_moves_its_key(key: str, value: Any) -> None:
    changed = lay_out(**{**SERVED, f"judge.{key}": value})
    assert not keys(lay_out(**SERVED), "judge") & keys(changed, "judge")


@pytest.mark.parametrize(
    ("key", "value"),
    [("concurrency", 3), ("timeout", 5.0), ("retries", 1), ("template", "summary"),
     ("base_url", "http://127.0.0.1:9/v1/")],
)  # fmt: skip
def test_what_moves_no_verdict_moves_no_key(key: str, value: Any) -> None:
    changed = lay_out(**{**SERVED, f"judge.{key}": value})
    assert keys(lay_out(**SERVED), "judge") == keys(changed, "judge")


def test_how_much_may_be_unreadable_moves_the_scores_alone() -> None:
    changed = lay_out(**SERVED, judge__unreadable=0.5)
    assert keys(lay_out(**SERVED), "judge") == keys(changed, "judge")
    assert not keys(lay_out(**SERVED), "score") & keys(changed, "score")


@pytest.mark.parametrize(
    "setting", ["judge.max_cost=3", "judge.concurrency=3", "judge.reading=text"]
)
def test_a_rule_takes_no_setting_that_it_would_not_read(setting: str) -> None:
    key, _, value = setting.partition("=")
    given = {key: float(value) if key.endswith("cost") else value}
    given = {k: int(v) if k.endswith("concurrency") else v for k, v in given.items()}
    with pytest.raises(RequestError, match=key):
        lay_out(**given)


def test_calls_are_two_for_every_answer_and_none_of_a_rule() -> None:
    served = lay_out(**SERVED)
    assert [calls(stage, 24) for stage in of(served, "judge")] == [2 * 24 * (4 * 2 + 1)] * 2
    assert not any(calls(stage, 24) for stage in served.stages if stage.verb != "judge")
    assert not any(calls(stage, 24) for stage in of(lay_out(), "judge"))
    read, written = call_tokens(of(served, "judge")[0], served)
    assert read > served.experiment.budget.max_prompt_tokens
    assert 1 <= written < 64


def test_a_plan_says_what_a_judge_would_cost_and_holds_no_key(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text('"m" = {input = 1000.0, output = 1.0, currency = "EUR"}')
    set_ = [text for key, value in SERVED.items() for text in ("--set", f"{key}={value}")]
    done = harness(
        tmp_path, "run", "--methods", "dpo", "--tasks", "summarization", "--budget", "smoke",
        "--seeds", "1", *set_, "--prices", "prices.toml", "--max-cost", "5", "--plan",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "at most 864 calls of m" in done.stdout
    assert "EUR, stopped at 5" in done.stdout
    assert "OPENAI" not in done.stdout + done.stderr
    assert environment()["HF_HUB_OFFLINE"] == "1"


def test_a_score_that_cannot_be_relied_on_makes_its_run_unreliable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    store = Store.open(tmp_path)
    (cell, *_) = lay_out().cells
    for facts, expected in (({}, ("done", "")), ({"unreliable": "why"}, ("unreliable", "why"))):
        stage = Stage("write", "a score", "stage_functions:told", {"facts": facts}, {})
        store.perform(stage)
        assert _status(replace(cell, score=stage), store, {}) == expected
