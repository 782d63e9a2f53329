"""The command line: what a user types, sees, and gets back as a status."""

from __future__ import annotations

import gzip
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli import main

from .command import PLANTED, SMOKE, harness, written


@pytest.fixture
def refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Ask what cannot be understood: exit status 2, one sentence, nothing written."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)

    def ask(*arguments: str) -> str:
        status = main(arguments)
        shown = capsys.readouterr()
        assert (status, shown.out) == (2, "")
        assert shown.err.startswith("harness: ")
        assert written(here) == []
        return shown.err

    return ask


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["run", "--methods", "madpoo"], "did you mean 'madpo'"),
        (["run", "--methods", "dpo", "--tasks", "sentimnt"], "did you mean 'sentiment'"),
        (["run", "--methods", "dpo", "--tasks", "sentiment-hihg"], "did you mean 'high'"),
        (["run", "--methods", "dpo", "--set", "budget.pears=3"], "did you mean 'budget.pairs'"),
        (["run", "--methods", "dpo", "--set", "sead=3"], "did you mean 'seeds'"),
        (["run", "--methods", "madpo", "--set", "madpo.c_maxx=3"], "did you mean 'c_max'"),
        (["run", "--methods", "madpo", "--set", "madpo.c_min=-1"], "c_min"),
        (["run", "--methods", "dpo", "--set", "sentiment.prompt_word=3"], "'prompt_words'"),
        (["run", "--methods", "dpo", "--set", "sentiment.temperature=0"], "temperature"),
        (["run", "--methods", "dpo", "--set", "sentiment.temperature=-1"], "temperature"),
        (["run", "--methods", "dpo", "--budget", "smal"], "did you mean 'small'"),
        (["run", "--methods", "dpo", "--seeds", "0"], "at least 1"),
        (["run", "--methods", "dpo", "--seeds", "-2"], "at least 1"),
        (["run", "--methods", "dpo", "--seeds", "two"], "whole number"),
        (["run", "--methods", "dpo", "--workers", "0"], "at least 1"),
        (["run", "--methods", "dpo", "--set", "budget.pairs=0"], "more than 0"),
        (["run", "--methods", "dpo", "--set", "budget.pairs=-5"], "more than 0"),
        (["run", "--methods", "dpo", "--set", "budget.learning_rate=0"], "more than 0"),
        (["run", "--methods", "dpo", "--set", "budget.learning_rate=fast"], "type float"),
        (["run", "--methods", "dpo", "--set", "budget.pairs=16"], "no whole step"),
        (["run", "--methods", "dpo", "--set", "budget.samples=0"], "more than 0"),
        (["run", "--methods", "dpo", "--set", "budget.precision=fp8"], "fp32"),
        (["run", "--methods", "dpo", "--set", "engine=paded"], "did you mean 'padded'"),
        (["run", "--methods", "dpo", "--set", "nonsense"], "key=value"),
        (["run", "--methods", "dpo,dpo"], "twice"),
        (["run", "--methods", ","], "names nothing"),
        (["run", "--methods", "dpo", "--set", "judge.template=five-grade"], "judge.template"),
        (["run", "--methods", "dpo", "--judge", "nobody"], "judge.kind"),
        (["run", "--methods", "dpo", "--tasks", "sentiment", "--judge-model", "m"], "judge.model"),
        (["run", "--methods", "dpo", "--set", "judge.unreadable=1"], "judge.unreadable"),
        (["run", "--methods", "dpo", "--set", "generation.model=m"], "generation.model"),
        (["run", "--methods", "dpo", "--also-lm-eval", ","], "names no task"),
        (["run", "--methods", "d\x1b[2Jpo"], "d\\x1b[2Jpo"),
        (["run"], "no method"),
        (["run", "--methods", "dpo", "--config", "nowhere.toml"], "nowhere.toml"),
        (["run", "--methods", "dpo", "--model", "no/such/folder"], "no/such/folder"),
        (["run", "--methods", "dpo", "--set", "sentiment.data=x"], "sentiment.reward"),
        (["run", "--methods", "./nowhere.py"], "nowhere.py"),
        (["rum", "--methods", "dpo"], "did you mean 'run'"),
        (["show", "dpoo"], "did you mean 'dpo'"),
        (["board", "nowhere"], "nowhere"),
        (["compare", "dpo", "simpo"], "no runs"),
    ],
)
def test_what_cannot_be_understood_is_refused_with_a_hint(
    refused: Callable[..., str], arguments: list[str], hint: str
) -> None:
    assert hint in refused(*arguments)


def test_the_shell_sees_the_exit_status(tmp_path: Path) -> None:
    assert harness(tmp_path, "run", "--methods", "madpoo").returncode == 2


def test_a_folder_that_is_no_model_is_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "readme.txt").write_text("no model")
    assert "config.json" in refused("run", "--methods", "dpo", "--model", str(folder))


def test_real_data_without_a_model_are_refused(refused: Callable[..., str], tmp_path: Path) -> None:
    data = f"sentiment.data={reviews(tmp_path / 'data', rows=4)}"
    reward = f"sentiment.reward={tmp_path / 'data'}"
    assert "--model" in refused("run", "--methods", "dpo", "--set", data, "--set", reward)


def reviews(folder: Path, rows: int, column: str = "text") -> Path:
    folder.mkdir(parents=True)
    for split in ("train", "test"):
        with gzip.open(folder / f"{split}.jsonl.gz", "wt") as file:
            for i in range(rows):
                text = f"the {split} film number {i} was rather good and i liked it a lot"
                file.write(json.dumps({column: text}) + "\n")
    return folder


@pytest.mark.parametrize("command", [["--help"], ["list"]])
def test_help_and_list_are_quick(tmp_path: Path, command: list[str]) -> None:
    # 0.3 s are promised; the best of five on a machine that others use too.
    times = []
    for _ in range(5):
        begun = time.monotonic()
        assert harness(tmp_path, *command).returncode == 0
        times.append(time.monotonic() - begun)
    assert min(times) < 0.3


def test_list_names_methods_and_tasks(tmp_path: Path) -> None:
    shown = harness(tmp_path, "list").stdout
    assert all(name in shown for name in ("dpo", "simpo", "madpo", "alphadpo", "sentiment"))


def test_list_names_worlds_and_runs(mixed: Path) -> None:
    worlds = harness(mixed, "list", "worlds").stdout
    assert "reviews" in worlds
    assert "grammar" not in worlds.split()[0]
    assert str(Path("runs") / "mixed") in harness(mixed, "list", "runs").stdout


def test_show_prints_reads_settings_and_source(tmp_path: Path) -> None:
    shown = harness(tmp_path, "show", "madpo").stdout
    assert all(word in shown for word in ("margin", "c_max", "2.0", "arXiv:2510.05342"))


def test_doctor_finds_all_that_is_needed(tmp_path: Path) -> None:
    done = harness(tmp_path, "doctor")
    assert done.returncode == 0, done.stdout
    assert "torch" in done.stdout
    assert written(tmp_path) == []


def test_a_plan_does_nothing(tmp_path: Path) -> None:
    done = harness(tmp_path, "run", "--methods", "madpo", "--plan", *SMOKE)
    assert done.returncode == 0, done.stderr
    assert "reward model" in done.stdout
    assert "Nothing was done" in done.stdout
    assert written(tmp_path) == []


def test_a_method_without_margins_never_causes_a_reward_model(tmp_path: Path) -> None:
    shown = harness(tmp_path, "run", "--methods", "dpo,simpo", "--plan", *SMOKE).stdout
    assert "reward" not in shown


def test_a_method_without_a_reference_never_causes_reference_logprobs(tmp_path: Path) -> None:
    shown = harness(
        tmp_path, "run", "--methods", "simpo", "--reference-method", "simpo", "--plan", *SMOKE
    ).stdout
    assert "reference log-probs" not in shown


MIXED = f"dpo,tr_dpo,{PLANTED / 'diverging.py'}"


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in which one method is sound and one leaves the finite numbers."""
    folder = tmp_path_factory.mktemp("mixed")
    done = harness(
        folder,
        "run",
        "--methods",
        f"dpo,tr_dpo,{PLANTED / 'diverging.py'}",
        "--name",
        "mixed",
        *SMOKE,
    )
    (folder / "status").write_text(str(done.returncode))
    (folder / "stdout").write_text(done.stdout)
    (folder / "stderr").write_text(done.stderr)
    return folder


def test_a_diverged_method_is_shown_and_never_ranked(mixed: Path) -> None:
    assert (mixed / "status").read_text() == "1"
    board = json.loads((mixed / "leaderboards" / "mixed" / "leaderboard.json").read_text())
    assert "diverging" not in json.dumps(board["tasks"][0]["rows"])
    shown = (mixed / "stdout").read_text()
    assert "diverged" in shown
    assert "at step" in shown
    assert "dpo" in json.dumps(board["tasks"][0]["rows"])


def test_a_moving_reference_that_never_moved_is_said_to_have_stood_still(mixed: Path) -> None:
    # Its tau is 512, and a smoke run has two steps.
    shown = " ".join((mixed / "stdout").read_text().split())
    assert shown.count("tr_dpo: its reference never moved in 2 steps") == 1


def test_a_reference_policy_that_has_not_learnt_its_world_is_said_to_have_not(mixed: Path) -> None:
    assert "samples are well-formed" in " ".join((mixed / "stdout").read_text().split())


def test_a_diverged_cell_is_not_tried_again(mixed: Path) -> None:
    done = harness(
        mixed,
        "run",
        "--methods",
        f"dpo,tr_dpo,{PLANTED / 'diverging.py'}",
        "--name",
        "mixed",
        *SMOKE,
    )
    assert done.returncode == 1
    (work,) = [line for line in done.stderr.splitlines() if line.startswith("Work:")]
    assert "none" in work


def test_lines_are_plain_when_nobody_watches(mixed: Path) -> None:
    text = (mixed / "stderr").read_text() + (mixed / "stdout").read_text()
    assert "\x1b" not in text
    assert "left" in text


def test_quiet_prints_the_board_alone(mixed: Path) -> None:
    done = harness(
        mixed, "run", "--methods", "dpo", "--name", "mixed-quiet", "--quiet", *SMOKE
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == ""
    assert "sentiment-high" in done.stdout


def test_one_seed_claims_no_order(mixed: Path) -> None:
    arguments = [a if a != "2" else "1" for a in SMOKE[:6]]
    done = harness(mixed, "run", "--methods", "dpo,simpo", "--name", "one", *arguments)
    assert done.returncode == 0, done.stderr
    assert "prompts only" in done.stdout


def test_a_data_set_without_the_column_fails_with_its_name(tmp_path: Path, shared: Path) -> None:
    data = reviews(tmp_path / "data", rows=4, column="review")
    here = tmp_path / "here"
    here.mkdir()
    done = harness(
        here, "run", "--methods", "dpo", "--tasks", "sentiment-high", "--budget", "smoke",
        "--model", str(shared / "models" / "stories260k-llama"),
        "--set", f"sentiment.data={data}",
        "--set", f"sentiment.reward={shared / 'models' / 'avgword-imdb-sentiment'}",
    )  # fmt: skip
    assert done.returncode == 1
    assert "'text'" in done.stderr
    assert "review" in done.stderr
    assert ".jsonl.gz" in done.stderr


def test_results_that_cannot_be_written_are_refused_before_work(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a folder is wanted")
    done = harness(tmp_path, "run", "--methods", "dpo", *SMOKE)
    assert done.returncode == 2
    assert "runs" in done.stderr
    shutil.rmtree(tmp_path / "leaderboards", ignore_errors=True)
    assert written(tmp_path) == ["runs"]
