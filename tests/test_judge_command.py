"""`harness judge` and `harness export`, from files to figures, with a real end point."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.cli import main
from harness.judge.exchange.people import read_people
from harness.records import Completion, Verdict, write_jsonl
from harness.store.manifest import Manifest, sizes, write_manifest

from .command import written
from .judge_server import judge_server as server_of
from .judge_server import longer_wins

KEY = "sk-a-secret-that-must-not-leak"
WORDS = ("one", "two words", "now three words", "these are four words", "and here we have five")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in, and a key."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    return folder


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the command line: status, standard output, standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        shown = capsys.readouterr()
        return status, shown.out, shown.err

    return call


def outputs(name: str, texts: Sequence[str], **more: str) -> str:
    rows = [
        {"instruction": f"Question {i}", "output": text, "generator": name, **more}
        for i, text in enumerate(texts)
    ]
    Path(f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    return f"{name}.json"


def files() -> tuple[str, str, str]:
    """A baseline of twelve answers, one model that says more and one that says less."""
    baseline = outputs("base", ["some plain words"] * 12)
    longer = outputs("longer", [WORDS[i % 5] + " and more" for i in range(12)])
    shorter = outputs(
        "shorter", ["no", "some plain words", *("yes" * (i % 3 + 1) for i in range(10))]
    )
    return baseline, longer, shorter


def flags(url: str, *more: str) -> list[str]:
    return [
        "--judge-model",
        "m",
        "--set",
        f"judge.base_url={url}",
        "--set",
        "judge.retries=2",
        *more,
    ]


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def everything(folder: Path, *texts: str) -> bytes:
    found = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]
    return b"\n".join([*found, *(text.encode() for text in texts)])


def test_answers_are_judged_in_both_orders_and_told_as_figures_and_annotations(
    here: Path, ask: Callable[..., tuple[int, str, str]]
) -> None:
    baseline, longer, shorter = files()
    with server_of() as server:
        arguments = ["judge", longer, shorter, "--baseline", baseline, *flags(server.url)]
        status, shown, _ = ask(*arguments, "--out", "out")
        calls = server.calls.total()
        again = ask(*arguments)
        assert server.calls.total() == calls  # every verdict was there
    assert status == again[0] == 0
    assert (here / "runs" / "store" / "shared" / "verdicts.sqlite").is_file()
    rows = read(here / "out" / "longer" / "m-answer-token" / "annotations.json")
    assert len(rows) == 12
    for row in rows:
        # By the server's rule, from the texts alone.
        first = longer_wins("", row["output_2"], row["output_1"])
        second = 1 - longer_wins("", row["output_1"], row["output_2"])
        assert row["preference_output_2_first"] == pytest.approx(1 + first, abs=1e-6)
        assert row["preference"] == pytest.approx(1 + (first + second) / 2, abs=1e-6)
        assert (row["generator_1"], row["generator_2"]) == ("base", "longer")
        assert set(row["raw_completion"].values()) <= {"m", "M"}
    found = read(here / "out" / "longer" / "m-answer-token" / "figures.json")
    mean = 100 * np.mean([row["preference"] - 1 for row in rows])
    error = 100 * np.std([row["preference"] for row in rows], ddof=1) / np.sqrt(12)
    assert found["win_rate"]["value"] == pytest.approx(mean)
    assert found["win_rate"]["standard_error"] == pytest.approx(error)
    assert found["length_controlled"]["value"] < found["win_rate"]["value"] - 5
    assert found["position_effect"]["value"] > 0.05
    other = read(here / "out" / "shorter" / "m-answer-token" / "figures.json")
    assert other["equal"] == 1
    assert other["win_rate"]["value"] < 50 < found["win_rate"]["value"]
    assert other["discrete_win_rate"]["value"] == pytest.approx(100 * 0.5 / 12)
    for word in ("longer", "shorter", "length-controlled", "consistency", "position effect"):
        assert word in shown
    assert "logprobs" in shown
    assert read(here / "out" / "judge.json")["asked"] == calls
    assert read(here / "out" / "longer" / "model_outputs.json")[0]["generator"] == "longer"


def test_published_outputs_are_judged_against_published_references(
    here: Path, shared: Path, ask: Callable[..., tuple[int, str, str]]
) -> None:
    folder = shared / "data" / "alpaca-eval"
    with server_of() as server:
        status, shown, _ = ask(
            "judge", str(folder / "outputs_alpaca-7b.jsonl.gz"),
            str(folder / "outputs_vicuna-7b-v1.5.jsonl.gz"), "--limit", "20",
            "--baseline", f"{folder / 'eval_set.jsonl.gz'}#text_davinci_003", *flags(server.url),
        )  # fmt: skip
        asked = len(server.calls)
    assert status == 0
    assert asked == 80
    assert "vicuna-7b-v1.5" in shown
    assert "Against text_davinci_003" in shown


def test_a_key_is_in_no_file_and_no_line(
    here: Path, ask: Callable[..., tuple[int, str, str]]
) -> None:
    baseline, longer, _ = files()
    with server_of(key="another key") as server:
        refused = ask("judge", longer, "--baseline", baseline, *flags(server.url), "--out", "out")
        assert server.calls.total() == 1
    with server_of(key=KEY) as server:
        done = ask("judge", longer, "--baseline", baseline, *flags(server.url), "--out", "out")
    assert (refused[0], done[0]) == (2, 0)
    assert "OPENAI_API_KEY" in refused[2]
    assert KEY.encode() not in everything(here, *refused[1:], *done[1:])


def test_an_unknown_model_stops_at_the_first_call(
    here: Path, ask: Callable[..., tuple[int, str, str]]
) -> None:
    baseline, longer, _ = files()
    with server_of(model="another") as server:
        status, shown, error = ask("judge", longer, "--baseline", baseline, *flags(server.url))
        assert server.calls.total() == 1
    assert (status, shown) == (2, "")
    assert "has no model 'm'" in error


def test_a_judge_that_answers_nonsense_makes_the_figures_unreliable(
    here: Path, ask: Callable[..., tuple[int, str, str]]
) -> None:
    baseline, longer, _ = files()
    with server_of(nonsense=True) as server:
        status, shown, _ = ask(
            "judge", longer, "--baseline", baseline, *flags(server.url), "--out", "out"
        )
    assert status == 0
    assert "UNRELIABLE: 12 of 12 prompts" in " ".join(shown.split())
    assert "longer  - unreliable" in shown  # in the table itself, where a figure would stand
    assert "could not be read was, for example: 'I'" in shown
    found = read(here / "out" / "longer" / "m-answer-token" / "figures.json")
    assert found["unreadable"] == 12
    assert found["win_rate"] is None  # nothing was read: no figure, and above all not 50
    rows = read(here / "out" / "longer" / "m-answer-token" / "annotations.json")
    assert {row["preference"] for row in rows} == {None}
    assert rows[0]["raw_completion"]["output_2_first"] == "I"


def test_money_stops_before_its_limit_and_the_same_command_goes_on(
    here: Path, ask: Callable[..., tuple[int, str, str]]
) -> None:
    baseline, longer, _ = files()
    Path("prices.toml").write_text('m = {input = 1000.0, output = 1000.0, currency = "EUR"}\n')
    with server_of() as server:
        arguments = [
            "judge", longer, "--baseline", baseline, *flags(server.url, "--prices", "prices.toml")
        ]  # fmt: skip
        status, shown, error = ask(*arguments, "--max-cost", "2", "--set", "judge.concurrency=1")
        some = server.calls.total()
        assert status == 1
        assert "max_cost" in error
        assert "EUR" in shown
        assert 0 < some < 24
        assert ask(*arguments)[0] == 0
        assert server.calls.total() == 24


def test_what_an_answer_holds_is_shown_and_never_obeyed(
    here: Path, ask: Callable[..., tuple[int, str, str]]
) -> None:
    wild = "\x1b[2J\x07</pre><script>alert(1)</script>\u202e"
    baseline = outputs("base", ["a", "b", "c"])
    Path("wild.json").write_text(
        json.dumps(
            [{"instruction": f"Question {i}", "output": f"{wild}{i}", "generator": f"w{wild}"}
             for i in range(3)]
        )
    )  # fmt: skip
    with server_of() as server:
        status, shown, error = ask(
            "judge", "wild.json", "--baseline", baseline, *flags(server.url), "--out", "out"
        )
    assert status == 0
    for text in (shown, error):
        assert not {"\x1b", "\x07", "\u202e"} & set(text)
    assert "\\x1b[2J" in shown
    refused = ask("judge", "wild.json#other", "--baseline", baseline, *flags(server.url))
    assert (refused[0], "\x1b" in refused[2]) == (2, False)
    (folder,) = (p for p in (here / "out").iterdir() if p.is_dir())
    assert folder.name.isascii()
    assert read(folder / "model_outputs.json")[0]["output"] == f"{wild}0"


def test_prompts_that_do_not_match_are_named_before_anything_is_asked(
    here: Path, ask: Callable[..., tuple[int, str, str]]
) -> None:
    baseline, longer = outputs("base", ["x"] * 3), outputs("longer", ["yy"] * 4)
    with server_of() as server:
        status, shown, error = ask("judge", longer, "--baseline", baseline, *flags(server.url))
        assert (status, shown, server.calls.total()) == (2, "", 0)
        assert "'Question 3'" in error
        assert not (here / "runs").exists()
        more = ("--common", "--set", "judge.retest=1")
        status, shown, _ = ask("judge", longer, "--baseline", baseline, *flags(server.url, *more))
    assert status == 0
    assert "differs from itself by 0 on average" in " ".join(shown.split())


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "judge what?"),
        (["a.json"], "--baseline"),
        (["a.json", "--against", "b"], "judge what?"),
        (["--against", "b", "--common"], "belong to OUTPUTS"),
        (["a.json", "--baseline", "b.json"], "name the model"),
        (["a.json", "--baseline", "b.json", "--judge", "opanai"], "did you mean 'openai'"),
        (["a.json", "--baseline", "b.json", "--judge", "rule"], "name the model"),
        (["a.json", "--baseline", "b.json", "--judge-model", "m", "--set", "judge.retires=1"],
         "did you mean 'judge.retries'"),
        (["a.json", "--baseline", "b.json", "--judge-model", "m", "--set", "budget.pairs=1"],
         "unknown key 'budget.pairs'"),
        (["a.json", "--baseline", "b.json", "--judge-model", "m", "--template", "sumary"],
         "did you mean 'summary'"),
        (["a.json", "--baseline", "b.json", "--judge-model", "m", "--max-cost", "1"], "prices"),
        (["a.json", "--baseline", "b.json", "--judge-model", "m", "--max-cost", "much"],
         "not a number"),
        (["a.json", "--baseline", "b.json", "--judge-model", "m", "--limit", "0"], "at least 1"),
        (["a.json", "--baseline", "b.json", "--judge-model", "m", "--task", "sentiment"],
         "with no baseline's"),
        (["a.json", "--baseline", "b.json", "--judge-model", "m"], "b.json: cannot be read"),
        (["--against", "nowhere", "--judge-model", "m"], "nowhere: no such file"),
    ],
)  # fmt: skip
def test_what_cannot_be_understood_is_refused_with_a_hint(
    here: Path, ask: Callable[..., tuple[int, str, str]], arguments: list[str], hint: str
) -> None:
    status, shown, error = ask("judge", *arguments)
    assert (status, shown) == (2, "")
    assert hint in error
    assert written(here) == []


def test_help_and_a_refusal_come_without_torch(here: Path) -> None:
    code = (
        "import sys; from harness.cli import main\n"
        "try: main(['judge', '--help'])\n"
        "except SystemExit: pass\n"
        "early = {'torch', 'pandas', 'numpy', 'openai'} & set(sys.modules)\n"
        "main(['judge', 'a.json', '--baseline', 'b.json', '--judge-model', 'm'])\n"
        "late = {'torch', 'transformers', 'datasets'} & set(sys.modules)\n"
        "sys.exit(f'imported {early} {late}' if early | late else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=here
    )
    assert done.returncode == 0, done.stderr


def test_two_files_of_one_generator_are_refused(
    here: Path, ask: Callable[..., tuple[int, str, str]]
) -> None:
    _, longer, shorter = files()
    status, _, error = ask(
        "judge", longer, longer, "--baseline", shorter, *flags("http://127.0.0.1:9/v1")
    )
    assert status == 2
    assert "both of 'longer'" in error


RULE = '''
from harness.api import Contest, Corpus, Reading, Task, task


def shorter(versus):
    return [Reading(float(len(v.first) < len(v.second))) for v in versus]


@task()
def mine():
    """A task whose judge likes short answers."""
    return Task(corpus=lambda sizes, rng: Corpus((), ()), pairs=lambda *_: [],
                score=lambda completions: [], metrics=(),
                contest=Contest(template="answer-token", rule=shorter))
'''


def test_a_tasks_own_rule_judges_without_any_model(
    here: Path, ask: Callable[..., tuple[int, str, str]]
) -> None:
    Path("mine.py").write_text(RULE)
    baseline, longer, _ = files()
    status, shown, _ = ask(
        "judge", longer, "--baseline", baseline, "--task", "./mine.py", "--out", "out"
    )
    assert status == 0
    assert "Judge: rule" in shown
    rows = read(here / "out" / "longer" / "rule" / "annotations.json")
    assert [row["preference"] for row in rows] == [
        1.0 + (len(row["output_2"]) < len(row["output_1"])) for row in rows
    ]
    assert not (here / "runs").exists()  # a rule costs nothing and is not kept


@pytest.mark.parametrize("folder", ["pandalm-human-pairs", "llmbar", "qa-feedback-pairs"])
def test_a_judge_that_knows_what_people_said_agrees_with_them(
    here: Path, shared: Path, ask: Callable[..., tuple[int, str, str]], folder: str
) -> None:
    pairs = read_people(shared / "data" / folder)[:30]
    said = {(p.prompt, p.first, p.second): p.labels for p in pairs}
    value = {"first": 0.9, "second": 0.1, "tie": 0.5}

    def knows(prompt: str, first: str, second: str) -> float:
        if labels := said.get((prompt, first, second)):
            return value[sorted(labels)[len(labels) // 2]]
        return 1 - value[sorted(said[prompt, second, first])[len(said[prompt, second, first]) // 2]]

    source = str(shared / "data" / folder)
    with server_of(rule=knows) as server:
        status, shown, _ = ask(
            "judge", "--against", source, "--limit", "30", *flags(server.url), "--out", "out"
        )
    assert status == 0
    found = read(here / "out" / f"{folder}-m-answer-token.json")["agreement"]["all"]
    assert found["pairs"] == 30
    assert found["accuracy"]["value"] == 1.0
    assert found["accuracy"]["low"] < 1.0  # thirty of thirty are not certainty
    assert found["kappa"]["value"] == pytest.approx(1.0)
    assert found["consistency"]["value"] == 1.0
    assert ("Krippendorff" in shown) == (folder == "pandalm-human-pairs")


def test_a_judge_with_a_habit_is_told_from_one_that_agrees(
    here: Path, shared: Path, ask: Callable[..., tuple[int, str, str]]
) -> None:
    source = str(shared / "data" / "qa-feedback-pairs")
    with server_of(rule=lambda *_: 0.8) as server:
        status, shown, _ = ask(
            "judge", "--against", source, "--limit", "40", *flags(server.url), "--out", "out"
        )
    found = read(here / "out" / "qa-feedback-pairs-m-answer-token.json")["agreement"]["all"]
    assert status == 0
    assert found["consistency"]["value"] == 0.0
    assert found["position_effect"]["value"] == pytest.approx(0.6, abs=1e-6)
    assert found["accuracy"]["value"] == 0.5  # in both orders it says nothing
    assert found["one_order"]["value"] == 0.5
    assert "position effect" in shown


def stage(run: Path, verb: str, key: str, label: str, **more: Any) -> Path:
    """The folder of a finished stage, with its line in the run's table of costs."""
    folder = run.parent / "store" / "stages" / verb / key
    folder.mkdir(parents=True)
    if "records" in more:
        name = "completions.jsonl" if verb == "generate" else "verdicts.jsonl"
        write_jsonl(folder / name, more["records"])
    write_manifest(folder, Manifest(
        key, verb, label, more.get("call", "harness.x:y"), more.get("settings", {}),
        more.get("inputs", {}), "", {}, "", "", None, "", 0.0, 1, None, "", "done", "",
        more.get("facts", {}), sizes(folder),
    ))  # fmt: skip
    with (run / "costs.csv").open("a", newline="") as file:
        csv.writer(file).writerow([verb, label, "done", 0, 0, "", key])
    return folder


def made_run(run: Path, settings: Mapping[str, Any]) -> tuple[Completion, Verdict]:
    run.mkdir(parents=True)
    (run / "costs.csv").write_text("stage,label,status,seconds,peak_memory_mib,device,key\n")
    answer = Completion("p", 0, "What?", "mine", (1,), (2,), True, original="theirs")
    verdict = Verdict("p", 0, 1.0, 1.0, 0.5, 0.75, True, "theirs")
    stage(run, "generate", "aa", "generate dpo beta=0.1, seed 0, toy", records=[answer],
          settings=settings)  # fmt: skip
    stage(run, "judge", "bb", "judge dpo beta=0.1, seed 0, toy", records=[verdict],
          inputs={"completions": "aa"}, call="harness.judge.contest:judge",
          facts={"kind": "openai", "model": "some/judge"})  # fmt: skip
    return answer, verdict


def test_a_runs_answers_and_verdicts_are_exported(
    here: Path, ask: Callable[..., tuple[int, str, str]]
) -> None:
    made_run(here / "runs" / "r", {"splits": ["test"]})
    status, shown, _ = ask("export", "runs/r")
    assert status == 0
    assert "2 files of 1 cells" in shown
    folder = here / "runs" / "r" / "outputs" / "toy" / "dpo-beta=0.1-seed-0"
    (row,) = read(folder / "model_outputs.json")
    assert (row["instruction"], row["output"], row["dataset"]) == ("What?", "mine", "toy")
    (row,) = read(folder / "some-judge" / "annotations.json")
    assert (row["preference"], row["output_1"], row["annotator"]) == (1.75, "theirs", "some/judge")


def test_completions_that_settings_were_chosen_by_are_not_exported(
    here: Path, ask: Callable[..., tuple[int, str, str]]
) -> None:
    made_run(here / "runs" / "r", {"splits": ["validation"]})
    status, _, error = ask("export", "runs/r")
    assert status == 2
    assert "no finished completions" in error
    assert ask("export", "nowhere")[0] == 2
