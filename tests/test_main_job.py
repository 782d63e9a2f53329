"""The main job at its default budget: what the board says must be true of the world."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

from .command import PLANTED, harness

METHODS = f"dpo,{PLANTED / 'useless.py'},{PLANTED / 'harmful.py'}"
BOARDS = ("sentiment-high", "summarization", "alpacaeval")
"""Of the default command those that differ in more than their pairs."""

JOB = ("run", "--methods", METHODS, "--tasks", ",".join(BOARDS))


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("main-job")
    done = harness(folder, *JOB, "--name", "main", timeout=1500)
    assert done.returncode == 0, done.stderr
    return folder


def differences(folder: Path, task: str, method: str, other: str) -> dict[str, Any]:
    frame = pd.read_csv(folder / "leaderboards" / "main" / "pairwise.csv")
    for a, b, sign in ((method, other, 1), (other, method, -1)):
        rows = frame[(frame["task"] == task) & (frame["a"] == a) & (frame["b"] == b)]
        if len(rows):
            row = rows.iloc[0]
            ends = sorted((sign * row["low"], sign * row["high"]))
            return {
                "value": sign * row["value"],
                "low": ends[0],
                "high": ends[1],
                "p": row["p"],
            }
    raise AssertionError(f"no difference of {method} and {other} on {task}")


@pytest.mark.parametrize("task", BOARDS)
def test_dpo_beats_the_reference_policy_by_more_than_its_interval(job: Path, task: str) -> None:
    assert differences(job, task, "dpo", "reference")["low"] > 0


@pytest.mark.parametrize("task", BOARDS)
def test_a_useless_method_ties_with_the_reference_policy(job: Path, task: str) -> None:
    found = differences(job, task, "useless", "reference")
    assert found["value"] == 0
    assert found["p"] == 1


@pytest.mark.parametrize("task", BOARDS)
def test_a_harmful_method_is_below_the_reference_policy(job: Path, task: str) -> None:
    found = differences(job, task, "harmful", "reference")
    assert found["high"] < 0
    assert found["p"] < 0.05


def test_samples_of_the_reference_policy_parse(job: Path) -> None:
    for path in (job / "runs" / "store" / "stages" / "pairs").glob("*/manifest.json"):
        assert json.loads(path.read_text())["facts"]["samples_that_parse"] >= 0.9


def manifest_times(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in (folder / "runs" / "store").rglob("manifest.json")}


def test_the_same_command_again_does_no_work(job: Path) -> None:
    before = manifest_times(job)
    board = (job / "leaderboards" / "main" / "leaderboard.json").read_bytes()
    begun = time.monotonic()
    done = harness(job, *JOB, "--name", "main")
    assert done.returncode == 0
    assert re.search(r"Work: +none", done.stderr)
    assert before == {
        p: p.stat().st_mtime_ns for p in (job / "runs" / "store").rglob("manifest.json")
    }
    assert (job / "leaderboards" / "main" / "leaderboard.json").read_bytes() == board
    # Five seconds are promised; a loaded machine gets three times that before this is red.
    assert time.monotonic() - begun < 15


def test_a_further_method_does_only_its_own_work(job: Path) -> None:
    done = harness(job, *JOB, "--methods", METHODS + ",simpo", "--plan")
    todo = [line for line in done.stdout.splitlines() if line.lstrip().startswith("about")]
    # Training, completions and scores of three seeds; two of the boards have a judge, too.
    assert len(todo) == 3 * (3 + 4 + 4)
    assert all("simpo" in line for line in todo)


def test_another_budget_shares_nothing_that_depends_on_it(job: Path) -> None:
    done = harness(job, *JOB, "--set", "budget.learning_rate=1e-4", "--plan")
    verbs = {
        line.split()[3] for line in done.stdout.splitlines() if line.strip().startswith("about")
    }
    assert verbs == {"train", "generate", "judge", "score"}


def test_the_board_is_a_function_of_the_scores_alone(job: Path, tmp_path: Path) -> None:
    run = tmp_path / "scores.parquet"
    run.write_bytes((job / "runs" / "main" / "scores.parquet").read_bytes())
    done = harness(tmp_path, "board", str(run), "--out", "again")
    assert done.returncode == 0, done.stderr
    first = {p.relative_to(job / "leaderboards" / "main"): p.read_bytes()
             for p in (job / "leaderboards" / "main").rglob("*") if p.is_file()}  # fmt: skip
    again = {p.relative_to(tmp_path / "again"): p.read_bytes()
             for p in (tmp_path / "again").rglob("*") if p.is_file()}  # fmt: skip
    assert first == again


def test_every_prompt_of_every_cell_is_scored_on_every_metric(job: Path) -> None:
    frame = pq.read_table(job / "runs" / "main" / "scores.parquet").to_pandas()
    counts = frame.groupby(["task", "method", "settings", "seed", "metric"]).size()
    assert set(counts) == {200}
    common = {"kl", "length", "distinct_2", "finished"}
    judged = {"win_rate", "lc_win_rate", "characters", "style_length"}
    sweep = {f"win_rate@{t}" for t in ("0", "0.25", "0.5", "0.75", "1")}
    expected = {
        "sentiment-high": {"reward"}, "summarization": judged | sweep | {"coverage", "rouge_l"},
        "alpacaeval": judged | {"correct"},
    }  # fmt: skip
    for task, own in expected.items():
        mine = frame[frame["task"] == task]
        assert set(mine["metric"]) >= common | own
        assert len(mine) == 4 * 3 * mine["metric"].nunique() * 200


def test_kl_is_zero_at_the_reference_and_positive_elsewhere(job: Path) -> None:
    frame = pq.read_table(job / "runs" / "main" / "scores.parquet").to_pandas()
    kl = frame[frame["metric"] == "kl"].groupby("method")["value"]
    assert set(kl.get_group("reference")) == {0.0}
    assert kl.mean()["dpo"] > 0.05


def test_manifests_say_how_a_result_came_about(job: Path) -> None:
    for path in (job / "runs" / "store" / "stages").rglob("manifest.json"):
        manifest = json.loads(path.read_text())
        assert manifest["key"] == path.parent.name
        assert manifest["seconds"] >= 0
        assert manifest["peak_memory"] > 0
        assert manifest["packages"]["torch"]
        if manifest["verb"] == "train":
            gate = manifest["facts"]["gate"]
            assert gate["noise_floor"] < 1e-4


def test_compare_prints_one_difference(job: Path) -> None:
    done = harness(job, "compare", "dpo", "reference", "--task", "summarization")
    assert done.returncode == 0, done.stderr
    assert "dpo" in done.stdout
    assert "summarization" in done.stdout
