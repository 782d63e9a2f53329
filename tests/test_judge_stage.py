"""The stage that judges: both orders, what it writes, what its manifest says."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from harness.backends import JUDGE_MEANS, JudgeSettings
from harness.contracts.judge import Reading, Versus
from harness.contracts.task import Contest
from harness.errors import DataError, RequestError
from harness.judge.asking.crowd import UnansweredError
from harness.judge.asking.verdict_cache import FILE
from harness.judge.both_orders import Match, both_orders, order_effects, retest_noise, unreadable
from harness.judge.contest import judge
from harness.judge.judges import check_judge, kind_of, open_judge, pinned
from harness.records import Completion, Verdict, read_jsonl, write_jsonl
from harness.store.stage import Work

from .judge_server import judge_server, longer_wins
from .test_classifier import build
from .test_judge_calls import KEY

TASK = '''
"""Longer is better, and the first a little better than it is."""
import math
from harness.api import Contest, Corpus, Metric, Reading, Task, task

def rule(comparisons):
    return [
        Reading(1 / (1 + math.exp(-(len(v.first) - len(v.second)) / 10 - 0.3)))
        for v in comparisons
    ]

@task()
def duel(*, ruled: bool = True, contest: bool = True) -> Task:
    """Answers of any kind."""
    found = Contest("answer-token", rule=rule if ruled else None) if contest else None
    return Task(
        corpus=lambda sizes, draw: Corpus([], []), pairs=lambda *_: [],
        score=lambda completions: [{"x": 0.0} for _ in completions],
        metrics=[Metric("x", "", "higher", "nothing")], contest=found,
    )
'''
RULE = Contest("answer-token", rule=lambda versus: [Reading(longer_wins(*one)) for one in versus])
BARE = Contest("answer-token")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def completion(row: int, text: str, original: str = "b" * 15, **more: Any) -> Completion:
    return Completion(
        f"p{row}", 0, f"prompt {row}", text, (1,), (2,), finished=True, original=original, **more
    )


def some(count: int = 6) -> list[Completion]:
    """Of several lengths; the third is the baseline's answer with spaces around it."""
    found = [completion(row, "a" * (3 + 7 * row)) for row in range(count)]
    return [*found[:2], replace(found[2], text=f" {found[2].original}\n"), *found[3:]]


def work(folder: Path, completions: Sequence[Completion], **settings: Any) -> Work:
    """What the stage is given for these settings of the judge."""
    (folder / "duel.py").write_text(TASK)
    for name in ("completions", "out", "scratch", "shared"):
        (folder / name).mkdir(exist_ok=True)
    write_jsonl(folder / "completions" / "completions.jsonl", completions)
    task_settings = settings.pop("task_settings", {})
    asked = JudgeSettings(**settings)
    given = asdict(asked)
    means = {key: given.pop(key) for key in JUDGE_MEANS}
    names = {"task": str(folder / "duel.py"), "task_settings": task_settings}
    return Work(
        {**names, "judge": given, "judge_is": pinned(asked, RULE)},
        {"completions": folder / "completions"}, folder / "out", folder / "scratch",
        lambda *_: None, means, folder / "shared",
    )  # fmt: skip


def verdicts(folder: Path) -> list[Verdict]:
    return read_jsonl(folder / "out" / "verdicts.jsonl", Verdict)


def test_a_verdict_is_the_mean_of_both_orders(tmp_path: Path) -> None:
    facts = judge(work(tmp_path, some()))
    for one, verdict in zip(some(), verdicts(tmp_path), strict=True):
        assert (verdict.prompt_id, verdict.baseline) == (one.prompt_id, one.original)
        if verdict.asked:
            first = longer_wins("", one.text, one.original)
            second = 1 - longer_wins("", one.original, one.text)
            assert verdict.shown_first == pytest.approx(first)
            assert verdict.shown_second == pytest.approx(second)
            assert verdict.preference == pytest.approx((first + second) / 2)
    assert facts["kind"] == "rule"
    assert facts["equal"] == 1
    assert facts["position_effect"]["value"] > 0.05


def test_equal_answers_are_a_tie_that_is_not_asked(tmp_path: Path) -> None:
    judge(work(tmp_path, some()))
    verdict = verdicts(tmp_path)[2]
    assert (verdict.asked, verdict.preference) == (False, 0.5)
    assert verdict.shown_first is verdict.shown_second is None


def test_a_served_model_says_the_same_as_the_rule_that_it_follows(tmp_path: Path) -> None:
    judge(work(tmp_path, some()))
    ruled = verdicts(tmp_path)
    with judge_server() as server:
        facts = judge(work(tmp_path, some(), kind="openai", model="judge", base_url=server.url))
        assert sum(server.calls.values()) == 2 * 5
    for mine, wanted in zip(verdicts(tmp_path), ruled, strict=True):
        assert mine.preference == pytest.approx(wanted.preference, abs=1e-9)
        assert mine.shown_first == (wanted.shown_first and pytest.approx(wanted.shown_first))
    assert json.loads(json.dumps(facts)) == facts
    assert (facts["asked"], facts["cached"], facts["equal"]) == (10, 0, 1)
    assert facts["reading"]["used"] == "logprobs"
    assert facts["new_tokens"]["output"] == 10
    assert (tmp_path / "shared" / FILE).is_file()


def test_the_second_time_nothing_is_asked(tmp_path: Path) -> None:
    with judge_server() as server:
        given = {"kind": "openai", "model": "judge", "base_url": server.url}
        judge(work(tmp_path, some(), **given))
        first = verdicts(tmp_path)
        facts = judge(work(tmp_path, some(), **given))
        assert sum(server.calls.values()) == 10
    assert verdicts(tmp_path) == first
    assert (facts["asked"], facts["cached"]) == (0, 10)


def test_what_cannot_be_read_is_counted_shown_and_no_tie(tmp_path: Path) -> None:
    def script(content: str, call: int) -> str | None:
        odd = "prompt 4" in content and "output m]\nb" in content
        return "wrong-token" if odd else None

    with judge_server(script=script) as server:
        facts = judge(work(tmp_path, some(), kind="openai", model="j", base_url=server.url))
    lost = verdicts(tmp_path)[4]
    assert lost.asked
    assert lost.shown_first is not None
    assert lost.shown_second is lost.preference is None
    assert facts["unreadable"] == {"verdicts": 1, "answers": 1, "said": ["I"]}


def test_a_prompt_without_a_baseline_is_named(tmp_path: Path) -> None:
    bad = [*some(), completion(77, "a", original=" ")]
    with pytest.raises(DataError, match=r"1 prompts.*'p77'"):
        judge(work(tmp_path, bad))


def test_a_task_that_compares_nothing_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="compares its answers with no baseline"):
        judge(work(tmp_path, some(), task_settings={"contest": False}))


def test_every_temperature_and_sample_has_its_verdict(tmp_path: Path) -> None:
    many = [
        replace(one, temperature=t, sample=s) for one in some() for t in (0.0, 1.0) for s in (0, 1)
    ]
    judge(work(tmp_path, many))
    assert [(v.prompt_id, v.temperature, v.sample) for v in verdicts(tmp_path)] == [
        (c.prompt_id, c.temperature, c.sample) for c in many
    ]


def test_the_noise_of_a_retest_is_that_of_the_judge(tmp_path: Path) -> None:
    turn = {"now": 0.0}

    def rule(prompt: str, first: str, second: str) -> float:
        return min(1.0, max(0.0, longer_wins(prompt, first, second) * 0.5 + turn["now"]))

    with judge_server(rule=rule) as server:
        given = {"kind": "openai", "model": "judge", "base_url": server.url}
        judge(work(tmp_path, some(), **given))
        turn["now"] = 0.125
        facts = judge(work(tmp_path, some(), **given, retest=1.0))
        assert set(server.calls.values()) == {2}
    assert facts["retest"]["comparisons"] == facts["retest"]["read"] == 10
    assert facts["retest"]["mean_absolute_difference"]["value"] == pytest.approx(0.125)
    assert facts["cached"] == 10


def test_a_retest_takes_its_share_by_content_alone() -> None:
    matches = [Match(f"p{i}", 0, 1.0, f"p{i}", "a" * i, "bb") for i in range(400)]
    seen: list[Versus] = []

    def rule(versus: Sequence[Versus]) -> list[Reading]:
        seen.extend(versus)
        return [Reading(longer_wins(*one)) for one in versus]

    judged = both_orders(rule, matches)
    seen.clear()
    found = retest_noise(rule, matches, judged, 0.25)
    assert 140 <= found["comparisons"] <= 260
    assert found["mean_absolute_difference"]["value"] == 0
    half = {one.prompt for one in seen if int(one.prompt[1:]) < 200}
    seen.clear()
    retest_noise(rule, matches[:200], both_orders(rule, matches[:200]), 0.25)
    assert {one.prompt for one in seen[-len(half) * 2 :]} == half


def verdict(prompt: int, first: float | None, second: float | None) -> Verdict:
    return Verdict(f"p{prompt}", 0, 1.0, first, second, 0.5, asked=True, baseline="")


def test_the_effects_of_order_are_those_worked_out_by_hand() -> None:
    found = order_effects(
        [verdict(0, 0.9, 0.5), verdict(1, 0.6, 0.4), verdict(2, 0.2, 0.3), verdict(3, None, 0.3)]
    )
    effects = [0.4, 0.2, -0.1]
    mean = sum(effects) / 3
    error = math.sqrt(sum((e - mean) ** 2 for e in effects) / 2 / 3)
    position = found["position_effect"]
    assert position["value"] == pytest.approx(mean)
    assert position["high"] - mean == pytest.approx(4.302653 * error, rel=1e-6)
    assert found["consistency"]["value"] == pytest.approx(1 / 3)
    both = order_effects([verdict(0, 0.5, 0.5), verdict(1, 0.4, 0.1)])
    assert both["consistency"]["value"] == 1


def test_nothing_that_was_asked_has_no_effects_and_no_error(tmp_path: Path) -> None:
    facts = judge(work(tmp_path, some()[2:3]))
    assert facts["position_effect"] is facts["consistency"] is None
    assert facts["unreadable"]["verdicts"] == 0


@pytest.mark.parametrize("bad", [1.5, -0.1, math.nan])
def test_a_judge_that_says_no_preference_is_refused(bad: float) -> None:
    match = Match("p", 0, 1.0, "p", "a", "b")
    with pytest.raises(DataError, match="is not from 0 to 1"):
        both_orders(lambda versus: [Reading(bad) for _ in versus], [match])
    with pytest.raises(DataError, match="1 readings of 2"):
        both_orders(lambda versus: [Reading(0.5)], [match])


def test_only_some_of_many_unread_words_are_shown() -> None:
    matches = [Match(f"p{i}", 0, 1.0, "p", "a", "b") for i in range(40)]
    words = iter(str(i) * 1000 for i in range(80))
    found = unreadable(both_orders(lambda v: [Reading(None, next(words)) for _ in v], matches))
    assert (found["verdicts"], found["answers"]) == (40, 80)
    assert [len(said) for said in found["said"]] == [200] * 5


def test_what_is_missing_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "prices.toml").write_text("judge = {input = 1e6, output = 1e6}")
    with judge_server() as server:
        given = {
            "kind": "openai", "model": "judge", "base_url": server.url, "max_cost": 90.0,
            "prices": str(tmp_path / "prices.toml"),
        }  # fmt: skip
        with pytest.raises(UnansweredError, match=r"judge.max_cost.* 10 of 10 comparisons"):
            judge(work(tmp_path, some(), **given))
        assert not server.calls
        facts = judge(work(tmp_path, some(), **{**given, "max_cost": 90_000.0}))
        assert facts["cost"]["currency"] == "USD"
        assert facts["cost"]["new"] == facts["cost"]["all"] == sum(facts["new_tokens"].values())


def test_auto_is_the_model_that_is_named_or_else_the_rule(tmp_path: Path) -> None:
    assert kind_of(JudgeSettings(), RULE) == "rule"
    assert kind_of(JudgeSettings(model="gpt"), RULE) == "openai"
    assert kind_of(JudgeSettings(model=str(tmp_path)), RULE) == "reward-model"
    assert kind_of(JudgeSettings(kind="openai"), RULE) == "openai"
    with pytest.raises(RequestError, match=r"judge.model.*judge.kind=reward-model"):
        kind_of(JudgeSettings(), BARE)
    with pytest.raises(RequestError, match="asks no model"):
        kind_of(JudgeSettings(kind="rule", model="gpt"), RULE)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"kind": "openai"}, "needs judge.model"),
        ({"model": "gpt"}, "set the environment variable OPENAI_API_KEY"),
        ({"model": "gpt", "base_url": "http://me:secretword@127.0.0.1/v1"}, "no user, password"),
        ({"model": "gpt", "base_url": "http://127.0.0.1/v1?key=secretword"}, "no user, password"),
        ({"model": "gpt", "base_url": "127.0.0.1:8000"}, "must be like http://127.0.0.1:8000/v1"),
        ({"model": "gpt", "template": "sumary"}, "did you mean 'summary'"),
        ({"model": "gpt", "template": "five-grade", "reading": "logprobs"}, "two labels"),
        ({"model": "gpt", "max_cost": 1.0}, "needs judge.prices"),
        ({"model": "gpt", "max_cost": math.nan, "prices": "x"}, "an amount of money"),
        ({"model": "gpt", "prices": "none.toml"}, "price table none.toml: cannot be read"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_made(
    settings: dict[str, Any], words: str
) -> None:
    here = {} if "KEY" in words else {"base_url": "http://127.0.0.1:9/v1"}
    with pytest.raises(RequestError, match=words) as refused:
        check_judge(JudgeSettings(**{**here, **settings}), BARE)
    assert "secretword" not in str(refused.value)


def test_a_server_on_this_machine_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("127.0.0.1", "localhost", "[::1]"):
        check_judge(JudgeSettings(model="m", base_url=f"http://{host}:8000/v1"), BARE)
    elsewhere = JudgeSettings(model="m", base_url="https://judges.invalid/v1")
    with pytest.raises(RequestError, match="OPENAI_API_KEY"):
        check_judge(elsewhere, BARE)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    check_judge(elsewhere, BARE)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-\n\u2026")
    with pytest.raises(RequestError, match="characters that no key has"):
        check_judge(elsewhere, BARE)


def test_checking_loads_neither_torch_nor_a_client() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from harness.judge.judges import check_judge\n"
        "from harness.backends import JudgeSettings; from harness.contracts.task import Contest\n"
        "at = 'http://127.0.0.1:1/v1'\n"
        "check_judge(JudgeSettings(model='m', base_url=at), Contest('summary'))\n"
        "heavy = {'torch', 'openai', 'pandas', 'transformers'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_a_judge_is_pinned_to_changes_with_its_template(tmp_path: Path) -> None:
    text = 'form = "token"\nmax_tokens = 1\nuser = "{fence}{prompt}{first}{second}"\n'
    text += "[labels]\n1 = 1.0\n2 = 0.0\n"
    (tmp_path / "mine.toml").write_text(text)
    settings = JudgeSettings(
        model="m", base_url="http://127.0.0.1:1/v1/", template=str(tmp_path / "mine.toml")
    )
    before = pinned(settings, BARE)
    (tmp_path / "mine.toml").write_text(text.replace("{prompt}", "{prompt} "))
    after = pinned(settings, BARE)
    assert before.pop("template_digest") != after.pop("template_digest")
    assert before == after
    assert before["base_url"] == "http://127.0.0.1:1/v1"


def test_a_template_that_changed_since_planning_is_not_asked(tmp_path: Path) -> None:
    text = 'form = "token"\nmax_tokens = 1\nuser = "{fence}{prompt}{first}{second}"\n'
    text += "[labels]\n1 = 1.0\n2 = 0.0\n"
    (tmp_path / "mine.toml").write_text(text)
    planned = work(
        tmp_path, some(), model="m", base_url="http://127.0.0.1:1/v1",
        template=str(tmp_path / "mine.toml"),
    )  # fmt: skip
    (tmp_path / "mine.toml").write_text(text.replace("{prompt}", "{prompt} "))
    with pytest.raises(RequestError, match="was changed since the work was planned"):
        judge(planned)


def reward_work(folder: Path, model: str) -> Work:
    return work(folder, some(), kind="reward-model", model=model)


def test_a_reward_model_that_changed_since_planning_judges_nothing(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    model = build(tmp_path / "model", "llama", id2label={0: "LABEL_0"})
    planned = reward_work(tmp_path, model)
    assert judge(planned)["revision"] == planned.settings["judge_is"]["content"]
    (tmp_path / "out" / "verdicts.jsonl").unlink()
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "note": 1}))
    with pytest.raises(RequestError, match=r"reward model .* was changed since .* planned"):
        judge(planned)
    assert not (tmp_path / "out" / "verdicts.jsonl").exists()


def test_a_reward_model_of_a_hub_is_loaded_at_the_commit_of_the_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the local cache of the hub, with a head that moves on after planning."""
    repository = tmp_path / "hub" / "models--owner--reward"
    commits = ["a" * 40, "b" * 40]
    for commit in commits:
        folder = repository / "snapshots" / commit
        folder.mkdir(parents=True)
        build(folder, "llama", id2label={0: "LABEL_0"})
    head = repository / "refs" / "main"
    head.parent.mkdir()
    head.write_text(commits[0])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    planned = reward_work(tmp_path, "owner/reward")
    head.write_text(commits[1])
    facts = judge(planned)
    assert planned.settings["judge_is"]["model"] == f"owner/reward@{commits[0]}"
    assert facts["revision"] == commits[0]
    with open_judge(
        JudgeSettings(kind="reward-model", model="owner/reward"), BARE, tmp_path
    ) as opened:
        assert opened.facts()["revision"] == commits[1]


def test_what_moves_no_verdict_of_a_judge_is_not_in_its_key(tmp_path: Path) -> None:
    url = "http://127.0.0.1:1/v1"
    assert pinned(JudgeSettings(base_url=url, reading="text", temperature=1.0), RULE) == pinned(
        JudgeSettings(), RULE
    )
    asked = JudgeSettings(model="m", base_url=url)
    assert pinned(replace(asked, concurrency=99, retries=1, unreadable=0.5), RULE) == pinned(
        asked, RULE
    )
    for change in ({"temperature": 1.0}, {"retest": 0.5}, {"reading": "text"}, {"model": "n"}):
        assert pinned(replace(asked, **change), RULE) != pinned(asked, RULE)


def test_the_environment_names_the_end_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with judge_server(key=KEY) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        with open_judge(JudgeSettings(model="judge"), BARE, tmp_path) as opened:
            (reading,) = opened.judge([Versus("p", "aaaa", "b")])
            assert reading.preference == pytest.approx(longer_wins("p", "aaaa", "b"))
            assert opened.facts()["base_url"] == server.url
            assert not re.search(KEY, json.dumps(opened.facts()))
