"""One training run in several processes: the same numbers, and one end for all of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from harness.cli import parser
from harness.commands.run import read
from harness.errors import DivergedError, GateError, HarnessError
from harness.pipeline.plan import plan
from harness.store.stage import Work
from harness.train import team
from harness.train.cell import train_cell
from harness.train.processes import in_processes
from harness.train.reference import score_reference
from harness.train.team import ALONE, Team

from .models import World, make_world, tiny, write_caches
from .team_jobs import late_death, steps_with_a_trap, tell
from .team_methods import PAIRS, pairs, train_all
from .test_step import ALL

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)
ROOT = Path(__file__).parents[1]

# One of each kind: free, free with a memory of other passes, coupled, with a state, with random
# numbers, with other answers, with a reference in memory, with one that moves, and pairs of these.
METHODS = (
    "dpo", "madpo", "wpo", "standardised", "alphadpo", "remembers", "flipped", "kto", "tdpo",
    "drifting", "tr_dpo", "following",
)  # fmt: skip


class KilledError(Exception):
    """The process that listens ends here."""


def quiet(done: int, of: int, unit: str) -> None:
    """A report that nobody reads."""


@pytest.fixture(scope="module", autouse=True)
def _importable() -> Iterator[None]:
    """Processes that are started find the jobs of this folder by name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return write_caches(tmp_path_factory.mktemp("caches"), pairs(), tiny(seed=1))


def work_in(folder: Path, inputs: Mapping[str, Path], **settings: Any) -> Work:
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Work(settings, inputs, folder / "out", folder / "scratch", quiet)


# ---- The same numbers


CELL = {
    "engine": "shared", "method": "alphadpo", "method_settings": {}, "seed": 0, "epochs": 1,
    "pairs_per_step": 15, "micro_pairs": 4, "micro_tokens": 200, "checkpoint_steps": 1,
    "precision": "fp32", "lora": None, "reward_epochs": 1,
    "optimisation": {"learning_rate": 3e-3, "schedule": "cosine", "warmup": 0.1, "epsilon": 1e-3},
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    found = make_world(tmp_path_factory.mktemp("world"))
    score_reference(
        found.work("reference", {"precision": "fp32", "engine": "shared", "entropy": False})
    )
    return found


@pytest.fixture(scope="module")
def both(
    inputs: Mapping[str, Path], world: World, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Work, Mapping[str, Any], Mapping[str, Any]]:
    """Steps of five pairs, in one process, and in two with two and three of them each."""
    work = work_in(
        tmp_path_factory.mktemp("both"), {**inputs, "world": world.folder},
        methods=METHODS, lora=(False, True), micro=2, cell=CELL,
    )  # fmt: skip
    return work, train_all(work, ALONE), in_processes(train_all, work, 2)


def tensors(work: Work, name: str, lora: bool, size: int, rank: int = 0) -> dict[str, Any]:
    return load_file(work.out / f"{name}-{lora}-{size}-{rank}.safetensors")


def check_same(
    work: Work, one: Any, two: Any, name: str, lora: bool, *, gradients: float = 1e-6
) -> None:
    key = f"{name}, {'lora' if lora else 'full'}"
    assert two[key]["losses"] == pytest.approx(one[key]["losses"], abs=1e-5, rel=1e-5)
    assert two[key]["norms"] == pytest.approx(one[key]["norms"], rel=1e-4)
    assert two[key]["held_out"] == pytest.approx(one[key]["held_out"], abs=1e-5, rel=1e-5)
    assert two[key]["state"].keys() == one[key]["state"].keys()
    for part, value in one[key]["state"].items():
        found = torch.tensor(two[key]["state"][part])
        torch.testing.assert_close(found, torch.tensor(value), atol=1e-4, rtol=1e-4)
    alone, leader, other = (tensors(work, name, lora, *at) for at in ((1, 0), (2, 0), (2, 1)))
    assert alone.keys() == leader.keys() == other.keys()
    largest = max(float(t.abs().max()) for n, t in alone.items() if n.startswith("gradient."))
    assert largest > 1e-4
    for part, value in alone.items():
        assert torch.equal(leader[part], other[part]), part
        limit = gradients * max(1.0, largest) if part.startswith("gradient.") else 1e-5
        torch.testing.assert_close(leader[part], value, atol=limit, rtol=0)


@pytest.mark.parametrize("lora", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", METHODS)
def test_two_processes_make_the_steps_of_one(name: str, lora: bool, both: Any) -> None:
    check_same(*both, name, lora)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_every_method_is_the_same_in_several_processes(
    size: int, inputs: Mapping[str, Path], tmp_path: Path
) -> None:
    work = work_in(tmp_path, inputs, methods=ALL, lora=(False, True), micro=2, micro_tokens=40)
    one, several = train_all(work, ALONE), in_processes(train_all, work, size)
    for name in ALL:
        for lora in (False, True):
            for rank in range(size):
                made = work.out / f"{name}-{lora}-{size}-{rank}.safetensors"
                made.rename(work.out / f"{name}-{lora}-2-{min(rank, 1)}.safetensors")
            check_same(work, one, several, name, lora, gradients=4e-6)  # rounding, of three sums


@pytest.mark.parametrize("name", METHODS)
def test_each_process_computes_its_share_and_no_more(name: str, both: Any) -> None:
    calls = [
        [int(line) for line in (both[0].out / f"calls-{name}-False-{at}").read_text().splitlines()]
        for at in ("1-0", "2-0", "2-1")
    ]
    assert max(map(max, calls)) == 2  # pairs of a micro-batch
    alone, first, second = map(sum, calls)
    # A reference in memory is asked by each process for itself where no step is looked at whole.
    spare = PAIRS if name == "tr_dpo" else 0
    assert first + second <= alone + spare
    assert first < second < 0.65 * alone + spare


def test_the_shares_are_everything_once_and_equal_within_one() -> None:
    for size in (1, 2, 3, 7):
        for count in range(20):
            shares = [Team(rank, size).share(count) for rank in range(size)]
            assert [i for share in shares for i in share] == list(range(count))
            assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_gradients_travel_in_buckets_of_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(team, "BUCKET", 5)
    sizes = [2, 3, 1, 9, 4, 1, 1]
    found = [[len(g) for g in bucket] for bucket in team._buckets(list(map(torch.zeros, sizes)))]
    assert found == [[2, 3], [1], [9], [4, 1], [1]]


def test_one_process_is_this_one(inputs: Mapping[str, Path], tmp_path: Path) -> None:
    facts = in_processes(tell, work_in(tmp_path, inputs), 1)
    assert (facts["rank"], facts["size"]) == (0, 1)
    assert (tmp_path / "out" / "rank-0").read_text().split()[0] == str(os.getpid())


def test_every_process_is_another_and_the_first_one_tells(
    inputs: Mapping[str, Path], tmp_path: Path
) -> None:
    work = work_in(tmp_path, inputs)
    facts = in_processes(tell, work, 2)
    assert (facts["rank"], facts["size"], facts["device"]) == (0, 2, "cpu:0")
    # What one of them has a gradient of, all get; what none has one of, stays without.
    assert facts["gradients"] == [[2.0, 2.0], [10.0, 10.0], None]
    assert facts["whole"] == [0.0, 1.0, 1.0]
    assert facts["odd"] == [False, False]
    told = [(work.out / f"rank-{rank}").read_text().split() for rank in (0, 1)]
    assert len({os.getpid(), *(int(pid) for pid, _ in told)}) == 3
    assert {threads for _, threads in told} == {"1"}
    assert all(memory > 1e8 for memory in facts["process_memory"])


def test_what_is_asked_for_reaches_the_stages_and_their_keys() -> None:
    def stages(*more: str) -> list[Any]:
        args = parser().parse_args(
            ["run", "--methods", "dpo", "--tasks", "sentiment-high", "--seeds", "1", *more]
        )
        return [stage for stage in plan(read(args)).stages if stage.verb == "train"]

    (plain,), (two,), (short,) = (
        stages(), stages("--processes", "2"), stages("--set", "budget.micro_tokens=256")
    )  # fmt: skip
    assert (plain.settings["processes"], plain.settings["micro_tokens"]) == (1, 16384)
    assert (two.settings["processes"], short.settings["micro_tokens"]) == (2, 256)
    assert len({plain.key, two.key, short.key}) == 3
    assert {name: s.key for name, s in plain.inputs.items()} == {
        name: s.key for name, s in two.inputs.items()
    }


# ---- One end for all


TRAPS: Mapping[str, tuple[type[Exception], str]] = {
    "kill": (HarnessError, r"process 2 of the 2 .* was killed by signal 9.*fewer workers"),
    "exit": (HarnessError, r"process 2 of the 2 .* ended with status 0 and said nothing"),
    "gate": (GateError, r"^this one process does not like it"),
    "strange": (HarnessError, r"StrangeError: strange words"),
    "sleep": (HarnessError, r"waited for in vain: .*the same command goes on"),
    "poison": (DivergedError, r"loss became nan at step 2"),
    "stray": (GateError, r"the 2 processes .* ended with different numbers"),
}


SOON = ("gate",)


@pytest.mark.parametrize(
    "trap", [t if t in SOON else pytest.param(t, marks=pytest.mark.slow) for t in TRAPS]
)
def test_what_befalls_one_process_ends_all_with_a_sentence(
    trap: str, inputs: Mapping[str, Path], tmp_path: Path
) -> None:
    work = work_in(tmp_path, inputs, rank=1, trap=trap)
    kind, words = TRAPS[trap]
    patience = timedelta(seconds=8 if trap == "sleep" else 100)
    with pytest.raises(kind, match=words) as caught:
        in_processes(steps_with_a_trap, work, 2, patience)
    assert type(caught.value) is kind
    for rank in (0, 1):
        with pytest.raises(ProcessLookupError):
            os.kill(int((work.scratch / f"pid-{rank}").read_text()), 0)
    if trap in ("gate", "strange"):
        assert "\n" not in str(caught.value)
        assert "In process 2 of 2" in caught.value.__notes__[0]


@pytest.mark.slow
def test_a_process_that_was_killed_is_named_and_not_the_one_that_missed_it(
    inputs: Mapping[str, Path], tmp_path: Path
) -> None:
    with pytest.raises(HarnessError, match=r"process 2 of the 2 .* killed by signal 9"):
        in_processes(late_death, work_in(tmp_path, inputs), 2)


def test_processes_that_died_go_on_from_one_checkpoint(
    inputs: Mapping[str, Path], tmp_path: Path
) -> None:
    work = work_in(tmp_path, inputs, rank=1, trap="kill")
    with pytest.raises(HarnessError, match="killed by signal 9"):
        in_processes(steps_with_a_trap, work, 2)
    assert [folder.name for folder in work.scratch.glob("step-*")] == ["step-2"]
    seen = []
    heard = replace(
        work, settings={"rank": 9, "trap": ""}, report=lambda done, *_: seen.append(done)
    )
    again = in_processes(steps_with_a_trap, heard, 2)
    assert seen == [3, 4, 5]
    assert again["begun"] == [2, 3, 4]
    whole = steps_with_a_trap(work_in(tmp_path / "whole", inputs, rank=9, trap=""), ALONE)
    assert again["losses"] == pytest.approx(whole["losses"], abs=1e-6)


def eventually(moment: Callable[[], bool], seconds: float = 60) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if moment():
            return True
        time.sleep(0.05)
    return False


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has fetched yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


PARENT = """
import sys
from pathlib import Path
from harness.store.stage import Work
from harness.train.processes import in_processes
from tests.team_jobs import wait
if __name__ == "__main__":
    folder = Path(sys.argv[1])
    in_processes(wait, Work({}, {}, folder, folder, print), 2)
"""


def test_processes_end_with_the_one_that_started_them(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    parent = subprocess.Popen([sys.executable, script, tmp_path], env=environment)
    files = [tmp_path / f"pid-{rank}" for rank in (0, 1)]
    try:
        assert eventually(lambda: all(file.exists() for file in files))
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert eventually(lambda: all(gone(int(file.read_text())) for file in files), 20)


# ---- A whole cell


def killed_after(step: int) -> Any:
    def report(done: int, of: int, unit: str) -> None:
        if unit == "steps" and done == step:
            raise KilledError

    return report


def history(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "history.json").read_text())
    return found


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def check_same_cell(one: Path, two: Path, alone: Any, facts: Any) -> None:
    assert (alone["processes"], facts["processes"]) == (1, 2)
    assert facts["bill"] == alone["bill"]
    for part in ("gate", "validation", "loss"):
        assert facts[part] == pytest.approx(alone[part], abs=1e-4, rel=1e-4), part
    for part in ("losses", "norms"):
        assert history(two)[part] == pytest.approx(history(one)[part], abs=1e-4, rel=1e-3)
    assert contents(one).keys() == contents(two).keys()
    weights = [load_file(folder / "model.safetensors") for folder in (one, two)]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, atol=1e-5, rtol=0)


def test_a_cell_in_two_processes_is_the_cell(both: Any) -> None:
    work, one, two = both
    check_same_cell(work.out / "cell-1", work.out / "cell-2", one["cell"], two["cell"])


@pytest.mark.slow
def test_a_cell_in_two_processes_goes_on_where_it_was_killed(world: World) -> None:
    one, killed, straight = (
        world.work(name, {**CELL, "processes": size})
        for name, size in (("one", 1), ("killed", 2), ("straight", 2))
    )
    with pytest.raises(KilledError):
        train_cell(replace(killed, report=killed_after(2)))
    assert list(killed.scratch.glob("step-*"))
    alone, facts, _ = (train_cell(work) for work in (one, killed, straight))
    check_same_cell(one.out, killed.out, alone, facts)
    assert contents(killed.out) == contents(straight.out)


def test_fewer_pairs_than_processes_leave_some_without_any(both: Any) -> None:
    one, two = (found["one pair"] for found in both[1:])
    assert two["seen"] == pytest.approx(one["seen"], abs=1e-5)
    assert (one["called"], two["called"]) == (True, False)  # the second process has the pair
