"""What a reader of the whole found: one test for each, so that it is not found again."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from harness.board.compute import build
from harness.budget import Budget
from harness.commands.run import command
from harness.config import make_budget, make_experiment
from harness.contracts.task import Answers
from harness.data.corpus import _described, _original
from harness.data.tokens import Limits, TokenRules
from harness.errors import DataError, RequestError
from harness.files import check_writable, replacing
from harness.pipeline.plan import plan
from harness.records import Pair, Prompt
from harness.registry import load_task
from harness.train.policy import build_small, check_context

from .command import PLANTED, SMOKE, environment, harness, written

ROOT = Path(__file__).parents[1]


def rules() -> TokenRules:
    small = load_task("sentiment").build().small_model
    assert small is not None
    return TokenRules.of(build_small(small, 0)[1])


def test_an_original_is_labelled_as_it_is_trained_on() -> None:
    prompt = Prompt("p", "train", "the plot was", " superb . i loved the ending . it felt fresh .")
    cut = _original(prompt, rules(), Limits(64, 5, "cut"))
    assert cut is not None
    assert cut.text == " superb . i loved the"
    assert len(cut.ids) == 5
    assert not cut.finished
    whole = _original(prompt, rules(), Limits(64, 40, "cut"))
    assert whole is not None
    assert (whole.text, whole.finished) == (prompt.original, True)
    assert whole.ids[-1] == rules().eos
    assert _original(Prompt("p", "train", "x"), rules(), Limits(64, 5, "cut")) is None


def test_the_reward_of_an_original_is_that_of_what_is_left_of_it() -> None:
    task = load_task("sentiment").build(label_noise=0.0)
    prompt = Prompt("p", "train", "the plot was", " long . the ending was awful .")
    other = Prompt("q", "validation", "the cast was", " old . the ending was awful .")
    answers = {}
    for each in (prompt, other):
        cut = _original(each, rules(), Limits(64, 2, "cut"))
        assert cut is not None
        answers[each.prompt_id] = Answers([cut, cut], cut)
    for pair in task.pairs("low", [prompt, other], answers, np.random.default_rng(0)):
        assert pair.chosen_reward == 0.0


def test_equal_rewards_are_no_disagreement() -> None:
    pairs = [Pair(str(i), "train", "p", "c", "r", chosen_reward=c, rejected_reward=0.0)
             for i, c in enumerate((1.0, 0.0, 0.0, -1.0))]  # fmt: skip
    found = _described(pairs)
    assert found["label_agrees_with_reward"] == 0.5
    assert found["equal_rewards"] == 0.5


def test_the_paper_preset_is_the_papers() -> None:
    budget = make_budget({"preset": "paper"})[1]
    assert isinstance(budget, Budget)
    published = {
        "pairs": 10000, "validation_pairs": 2000, "epochs": 2, "pairs_per_step": 32,
        "learning_rate": 1e-5, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.01, "warmup": 0.03,
        "schedule": "cosine", "clip": 1.0, "test_prompts": 2000,
    }  # fmt: skip
    assert {key: getattr(budget, key) for key in published} == published
    assert (budget.lora.rank, budget.lora.alpha) == (16, 32.0)
    assert (budget.reward_model.learning_rate, budget.reward_model.per_step) == (1e-5, 32)
    assert (budget.warm_start.epochs, budget.warm_start.per_step) == (5, 32)


def by_path(**keys: str) -> tuple[str, list[str]]:
    given = {"tasks": "sentiment-high", "budget.preset": "smoke", "seeds": 1, **keys}
    x = make_experiment(given, known_tasks=["sentiment"], plugin_name=lambda n: Path(n).stem)
    return x.reference_method, [row.method.name for row in plan(x).rows]


def test_a_reference_method_may_be_named_by_its_path_or_by_its_name() -> None:
    path = str(PLANTED / "harmful.py")
    assert by_path(methods="dpo", reference_method=path) == ("harmful", ["harmful", "dpo"])
    assert by_path(methods=path, reference_method="harmful") == ("harmful", ["harmful"])


def test_a_reference_row_that_failed_is_not_replaced_by_other_settings(make) -> None:
    scores = make()
    runs = [
        replace(r, settings="beta=0.3" if r.method == "simpo" else r.settings,
                method="dpo" if r.method == "simpo" else r.method)
        for r in scores.header.runs
    ]  # fmt: skip
    gone = {"status": "diverged", "reason": "NaN"}
    runs = [
        replace(r, **gone) if (r.method == "dpo" and r.settings != "beta=0.3") else r for r in runs
    ]
    frame = scores.frame.assign(
        settings=scores.frame.settings.where(scores.frame.method != "simpo", "beta=0.3"),
        method=scores.frame.method.where(scores.frame.method != "simpo", "dpo"),
    )
    changed = replace(scores, frame=frame, header=replace(scores.header, runs=tuple(runs)))
    (task,) = build(changed).tasks
    assert task.reference == ""
    assert all(row.gap is None for row in task.rows)


@pytest.fixture
def make(request: pytest.FixtureRequest):
    """The synthetic scores of the board's own tests."""
    path = Path(__file__).parent / "test_board" / "conftest.py"
    space: dict[str, object] = {"__name__": "board_conftest"}
    exec(compile(path.read_text(), str(path), "exec"), space)
    return space["make_scores"]


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("name", "../../evil", "not a name"),
        ("name", "/absolute", "not a name"),
        ("budget.test_prompts", 1, "at least 2"),
        ("budget.reward_model.per_step", 100000, "no whole step"),
        ("budget.learning_rates", [1e-4, -1.0], "more than 0"),
        ("budget.learning_rates", 1e-4, "list of numbers"),
        ("budget.trials", 0, "more than 0"),
    ],
)
def test_requests_that_could_only_fail_later_are_refused(
    key: str, value: object, words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        make_experiment(
            {"methods": "dpo", key: value}, known_tasks=["sentiment"], plugin_name=lambda n: n
        )


def test_a_board_that_could_not_be_written_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = harness(tmp_path, "run", "--methods", "dpo", "--out", "file/board", *SMOKE)
    assert done.returncode == 2
    assert "file/board" in done.stderr
    assert not list(tmp_path.glob("runs/store/stages/*/*"))


def test_files_are_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with replacing(path) as aside:
        aside.write_text("old")

    def fail() -> None:
        with replacing(path) as aside:
            aside.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert path.read_text() == "old"
    assert written(path.parent) == ["file"]
    check_writable(path.parent)
    assert written(path.parent) == ["file"]


def test_the_command_of_a_board_is_without_what_only_changes_its_showing() -> None:
    shown = ["run", "--quiet", "--methods", "a b", "--workers", "3", "--verbose", "--workers=1"]
    assert command(shown) == "harness run --methods 'a b'"


def test_a_task_that_reads_more_than_its_model_can_is_refused() -> None:
    small = load_task("sentiment").build().small_model
    assert small is not None
    model = build_small(small, 0)[0]
    check_context(model, 128)
    with pytest.raises(DataError, match="reads 128 tokens and the budget allows 129"):
        check_context(model, 129)


def test_an_interrupt_while_libraries_are_imported_ends_at_once(tmp_path: Path) -> None:
    for delay in (0.25, 0.6, 1.0):
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.cli", "run", "--methods", "dpo", *SMOKE],
            cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        time.sleep(delay)
        os.kill(process.pid, signal.SIGINT)
        begun = time.monotonic()
        _, shown = process.communicate(timeout=60)
        assert time.monotonic() - begun < 10
        assert process.returncode in (-signal.SIGINT, 130)
        assert "Traceback" not in shown


def example_of_contributing() -> str:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    block = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert block
    return re.sub(r"^   ", "", block[1], flags=re.MULTILINE)


def test_the_method_that_contributing_shows_runs_as_it_stands(tmp_path: Path) -> None:
    source = example_of_contributing()
    ast.parse(source)
    assert len(source.strip().splitlines()) <= 16
    (tmp_path / "savage.py").write_text(source)
    done = harness(tmp_path, "run", "--methods", "dpo,./savage.py", "--name", "own", *SMOKE)
    assert done.returncode == 0, done.stderr
    board = json.loads((tmp_path / "leaderboards" / "own" / "leaderboard.json").read_text())
    assert "savage" in json.dumps(board["tasks"][0]["rows"])


def test_a_cell_that_runs_out_of_memory_fails_alone(tmp_path: Path) -> None:
    methods = f"dpo,{PLANTED / 'hungry.py'}"
    done = harness(tmp_path, "run", "--methods", methods, "--name", "hungry", *SMOKE)
    assert done.returncode == 1
    assert "memory ran out" in done.stdout
    frame = pd.read_csv(tmp_path / "leaderboards" / "hungry" / "leaderboard.csv")
    rows = frame.set_index("label")["not_ranked"]
    assert "memory ran out" in rows["hungry"]
    assert pd.isna(rows["dpo"])
    assert "Traceback" not in done.stderr


def test_a_coupled_method_that_does_not_say_so_is_void(tmp_path: Path) -> None:
    done = harness(
        tmp_path, "run", "--methods", f"dpo,{PLANTED / 'undeclared.py'}", "--name", "x", *SMOKE
    )
    assert done.returncode == 1
    assert "coupled=True" in done.stdout
