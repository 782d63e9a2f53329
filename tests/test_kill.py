"""kill -9 at any moment: the same command ends with the same bits."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.cli import parser
from harness.commands.run import read
from harness.pipeline.plan import plan

from .command import environment, harness

COMMAND = (
    "run", "--methods", "dpo,alphadpo,madpo", "--budget", "smoke", "--tasks", "sentiment-high",
    "--seeds", "1", "--set", "budget.pairs=960", "--set", "budget.warm_start.texts=2048",
    "--set", "budget.reward_model.epochs=2", "--name", "kill",
)  # fmt: skip
"""Thirty steps of training, so that a checkpoint is written at the twenty-fifth."""


@pytest.fixture(scope="module")
def verbs() -> dict[str, str]:
    """The kind of every stage of the command, by its key."""
    args = parser().parse_args(COMMAND)
    return {stage.key: stage.verb for stage in plan(read(args)).stages}


def reached(folder: Path, verbs: dict[str, str], verb: str, pattern: str) -> bool:
    """Whether a stage of this kind is under way and has written something like the pattern."""
    work = folder / "runs" / "store" / "work"
    return any(
        verbs.get(path.relative_to(work).parts[0]) == verb for path in work.glob(f"*/{pattern}")
    )


def kill_when(folder: Path, moment: Callable[[], bool]) -> bool:
    """Start the command and kill it and all its workers at a moment; False if that never came."""
    process = subprocess.Popen(
        [sys.executable, "-m", "harness.cli", *COMMAND], cwd=folder, env=environment(),
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    end = time.monotonic() + 240
    while time.monotonic() < end and process.poll() is None:
        if moment():
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return True
        time.sleep(0.01)
    process.kill()
    process.wait()
    return False


def results(folder: Path) -> dict[str, bytes]:
    wanted = [
        *(folder / "leaderboards").rglob("*"), folder / "runs" / "kill" / "scores.parquet",
        *(folder / "runs" / "store" / "stages").rglob("*.safetensors"),
        *(folder / "runs" / "store" / "stages").rglob("*.jsonl"),
    ]  # fmt: skip
    return {str(p.relative_to(folder)): p.read_bytes() for p in wanted if p.is_file()}


MUST = ("policy", "reward-model", "train")
"""Stages with checkpoints: each must have been killed between two of them."""

MOMENTS = (
    ("policy", "scratch/step-*"),
    ("sample", "out"),
    ("reward-model", "scratch/step-*"),
    ("train", "scratch/step-*"),
    ("train", "scratch/step-*"),
    ("generate", "out"),
    ("score", "out"),
)


def test_a_run_killed_at_many_points_ends_with_the_bits_of_one_that_was_not(
    tmp_path: Path, verbs: dict[str, str]
) -> None:
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    for folder in (undisturbed, killed):
        folder.mkdir()
    kills = [
        kill_when(killed, lambda m=moment: reached(killed, verbs, *m)) for moment in MOMENTS
    ]  # fmt: skip
    assert kills[0], "the warm start was never seen at a checkpoint"
    assert all(kills[i] for i, (verb, _) in enumerate(MOMENTS) if verb in MUST)
    assert sum(kills) >= 4, (
        f"killed only at {[m for m, k in zip(MOMENTS, kills, strict=True) if k]}"
    )
    for folder in (undisturbed, killed):
        done = harness(folder, *COMMAND)
        assert done.returncode == 0, done.stderr
    expected, found = results(undisturbed), results(killed)
    assert expected.keys() == found.keys()
    assert len(expected) > 20
    assert [name for name in expected if expected[name] != found[name]] == []
