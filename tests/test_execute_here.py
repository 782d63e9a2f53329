from __future__ import annotations

import json
import multiprocessing.process
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.errors import RequestError
from harness.execute.events import Event, Finished, Outcome, Progress, Started, Waiting
from harness.execute.here import carry_out
from harness.store.stage import Stage
from harness.store.store import Store

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def stage(function: str, label: str = "", inputs: list[Stage] | None = None, **kw: Any) -> Stage:
    named = {f"input {n}": source for n, source in enumerate(inputs or [])}
    return Stage("try", label or function, f"stage_functions:{function}", kw, named)


def run(store: Store, *stages: Stage, workers: int = 2) -> tuple[dict[str, Outcome], list[Event]]:
    events: list[Event] = []
    return carry_out(stages, store, workers=workers, listen=events.append), events


def by_label(events: list[Event]) -> dict[str, tuple[str, str]]:
    ends = [event for event in events if isinstance(event, Finished)]
    return {end.stage.label: (end.outcome.status, end.outcome.reason) for end in ends}


def refuse(*_: object) -> None:
    raise AssertionError("a process was started")


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def diamond(counter: str, **settings: Any) -> list[Stage]:
    top = stage("write", "top", counter=counter, text="t", **settings)
    left = stage("join", "left", [top], counter=counter)
    right = stage("join", "right", [top, top], counter=counter)
    return [top, left, right, stage("join", "bottom", [left, right], counter=counter)]


def test_inputs_come_first_and_each_stage_is_made_once(store: Store, tmp_path: Path) -> None:
    stages = diamond(str(tmp_path / "counter"))
    outcomes, events = run(store, stages[-1])
    assert [outcomes[s.key].status for s in stages] == ["done"] * 4
    assert (store.folder(stages[-1]) / "result.txt").read_text() == "t+t+t"
    assert (tmp_path / "counter").read_text().count("called") == 4
    finished = [event.stage.label for event in events if isinstance(event, Finished)]
    assert (finished[0], sorted(finished[1:3]), finished[3]) == ("top", ["left", "right"], "bottom")


def test_a_second_time_starts_nothing_and_is_quick(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages = diamond(str(tmp_path / "counter"))
    run(store, stages[-1])
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
    clock = time.monotonic()
    outcomes, events = run(store, *diamond(str(tmp_path / "counter")))
    assert time.monotonic() - clock < 0.5
    assert {outcome.status for outcome in outcomes.values()} == {"cached"}
    assert len(events) == 4


def test_many_finished_stages_are_still_quick(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def chain() -> list[Stage]:
        first = stage("write", text="")
        return [
            stage("join", f"{n}", [first], counter=str(tmp_path / "c"), n=n) for n in range(200)
        ]

    for wanted in [chain()[0].inputs["input 0"], *chain()]:
        store.perform(wanted)
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
    clock = time.monotonic()
    run(store, *chain())
    assert time.monotonic() - clock < 0.5


def test_no_more_processes_than_there_is_work(store: Store, tmp_path: Path) -> None:
    counts: list[int] = []

    def listen(event: Event) -> None:
        if isinstance(event, Started):
            counts.append(len(multiprocessing.active_children()))

    carry_out(diamond(str(tmp_path / "counter")), store, workers=16, listen=listen)
    assert max(counts) == 2
    assert multiprocessing.active_children() == []


def test_stages_that_do_not_need_one_another_run_at_once(store: Store, tmp_path: Path) -> None:
    names = ["a", "b", "c"]
    stages = [stage("meet", n, name=n, names=names, folder=str(tmp_path)) for n in names]
    outcomes, _ = run(store, *stages, workers=3)
    assert {outcome.status for outcome in outcomes.values()} == {"done"}


def test_stages_begin_in_the_order_given(store: Store) -> None:
    stages = [stage("write", f"{n}", text=f"{n}") for n in (3, 1, 2)]
    late = stage("join", "late", stages[:1])
    _, events = run(store, stages[0], late, *stages[1:], workers=1)
    begun = [event.stage.label for event in events if isinstance(event, Started)]
    assert begun == ["3", "late", "1", "2"]


def test_progress_is_heard_with_its_unit_and_its_end(store: Store, tmp_path: Path) -> None:
    wanted = stage("climb", steps=100, traps=str(tmp_path))
    _, events = run(store, wanted)
    assert events[0] == Started(wanted)
    assert isinstance(events[-1], Finished)
    progress = [event for event in events if isinstance(event, Progress)]
    assert progress[-1] == Progress(wanted, 100, 100, "steps")
    assert len(progress) < 50, "each step was sent"


def test_a_worker_that_saw_a_failure_is_not_used_again(store: Store) -> None:
    stages = [stage("environment", n=0), stage("environment", n=1)]
    stages += [stage("fail", message=""), stage("environment", n=2)]
    run(store, *stages, workers=1)
    manifests = [store.manifest(wanted) for wanted in stages]
    pids = [manifest.facts["pid"] for manifest in manifests if manifest]
    assert pids[0] == pids[1] != pids[2]


def test_workers_use_one_thread_each_and_the_parent_as_before(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    wanted = stage("environment")
    run(store, wanted)
    manifest = store.manifest(wanted)
    assert manifest is not None
    assert manifest.facts["OMP_NUM_THREADS"] == manifest.facts["MKL_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ


FAILURES = [
    ("fail", {"message": "bad luck"}, "ValueError: bad luck"),
    ("leave", {}, "SystemExit: the library had enough"),
    ("exit_at_once", {}, "its process ended with status 3 and said nothing"),
    ("end_by_signal", {"signal": 9}, "killed by signal 9, most often because memory ran out"),
    ("end_by_signal_leaving_a_child", {}, "killed by signal 9, most often because memory ran out"),
    ("end_by_signal", {"signal": 11}, "killed by signal 11 (Segmentation fault)"),
    ("run_out_of_memory", {"kind": "torch"}, "memory ran out (RuntimeError: [enforce fail"),
    ("not_there", {}, "AttributeError: module 'stage_functions' has no attribute 'not_there'"),
]


@pytest.mark.parametrize(("function", "settings", "reason"), FAILURES)
def test_a_failure_ends_only_what_was_to_be_built_on_it(
    store: Store, function: str, settings: dict[str, Any], reason: str
) -> None:
    bad = stage(function, "bad", **settings)
    after = stage("join", "after", [bad])
    stages = [bad, stage("join", "long after", [after]), _write(0), _write(1)]
    outcomes, events = run(store, *stages)
    ends = by_label(events)
    status, told = ends.pop("bad")
    assert status == "failed"
    assert told.startswith(reason)
    left = store.failure(bad) if store.failure(bad).exists() else None
    assert outcomes[bad.key].traceback == left
    assert (left is None) == reason.startswith(("its process", "killed"))
    assert ends.pop("after") == ends.pop("long after") == ("skipped", "because bad failed")
    assert set(ends.values()) == {("done", "")}
    assert len(outcomes) == 5
    assert store.manifest(bad) is None


def _write(n: int) -> Stage:
    return stage("write", f"write {n}", text=f"{n}")


def test_a_failure_leaves_its_traceback_until_it_is_overcome(store: Store, tmp_path: Path) -> None:
    wanted = stage("join", "join", [], counter=str(tmp_path / "no" / "counter"))
    run(store, wanted)
    told = store.failure(wanted).read_text()
    assert "Traceback" in told
    assert 'stage_functions.py"' in told
    (tmp_path / "no").mkdir()
    outcomes, _ = run(store, wanted)
    assert outcomes[wanted.key].status == "done"
    assert not store.failure(wanted).exists()


def test_a_worker_that_was_killed_is_replaced_and_its_stage_resumes(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "5").touch()
    wanted = stage("climb", steps=9, traps=str(tmp_path))
    others = [_write(n) for n in range(2)]
    first, _ = run(store, wanted, *others, workers=1)
    assert first[wanted.key].status == "failed"
    assert {first[other.key].status for other in others} == {"done"}
    again, _ = run(store, wanted, *others, workers=1)
    assert again[wanted.key].status == "done"
    manifest = store.manifest(wanted)
    assert manifest is not None
    assert manifest.attempts == 2


def test_a_diverged_run_is_not_repeated_and_hands_on_its_end(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = str(tmp_path / "counter")
    wanted = stage("join", "score", [stage("diverge", "train", counter=counter)], counter=counter)
    expected = {"train": ("diverged", "loss is nan at step 12")}
    expected["score"] = expected["train"]
    assert by_label(run(store, wanted)[1]) == expected
    monkeypatch.setattr(multiprocessing.process.BaseProcess, "start", refuse)
    assert by_label(run(store, wanted)[1]) == expected
    assert Path(counter).read_text().count("called") == 1


def test_an_input_that_nobody_needs_any_more_is_not_made_again(
    store: Store, tmp_path: Path
) -> None:
    stages = diamond(str(tmp_path / "counter"))
    run(store, stages[-1])
    for gone_stage in stages[:2]:
        store.folder(gone_stage).rename(tmp_path / gone_stage.label)
    outcomes, _ = run(store, stages[-1])
    assert outcomes[stages[0].key].usable
    assert "not needed" in outcomes[stages[0].key].reason
    assert (tmp_path / "counter").read_text().count("called") == 4
    extra = stage("join", "extra", [stages[2], stages[1]])
    outcomes, _ = run(store, stages[-1], extra)
    assert [outcomes[s.key].status for s in [*stages, extra]] == [
        *("done", "done", "cached", "cached", "done")
    ]


def test_what_a_killed_run_left_behind_is_cleared_up(store: Store, tmp_path: Path) -> None:
    wanted = stage("write", text="")
    run(store, wanted)
    left = store.root / "work" / wanted.key / "scratch"
    left.mkdir(parents=True)
    run(store, wanted)
    assert not left.parent.exists()


def test_no_worker_is_an_error(store: Store) -> None:
    with pytest.raises(RequestError, match="cannot work with 0 workers"):
        run(store, _write(0), workers=0)


def test_nothing_wanted_is_nothing_done(store: Store) -> None:
    assert run(store) == ({}, [])


PROGRAM = """
import json, sys
from pathlib import Path
from harness.execute.events import Started
from harness.execute.here import carry_out
from harness.store.stage import Stage
from harness.store.store import Store

def main():
    root, function, settings = sys.argv[1:]
    stage = Stage("try", function, f"stage_functions:{function}", json.loads(settings), {})
    say = lambda event: print(type(event).__name__, flush=True)
    print("here", flush=True)
    try:
        outcomes = carry_out([stage], Store.open(Path(root)), workers=2, listen=say)
    except KeyboardInterrupt:
        print("stopped", flush=True)
        raise SystemExit(130)
    print(outcomes[stage.key].status, outcomes[stage.key].reason)

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts another process that carries out one stage, in a group of its own as a shell does."""
    (tmp_path / "program").mkdir()
    for name in ("console", "module.py"):  # a console script has no suffix
        (tmp_path / "program" / name).write_text(PROGRAM)

    def start(wanted: Stage, how: str = "console") -> subprocess.Popen[str]:
        command = {"console": [str(tmp_path / "program" / "console")], "module": ["-m", "module"]}
        arguments = [str(tmp_path / "store"), wanted.call.partition(":")[2]]
        path = [str(HERE), str(tmp_path / "program"), os.environ.get("PYTHONPATH", "")]
        return subprocess.Popen(
            [sys.executable, *command[how], *arguments, json.dumps(wanted.settings)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start


@pytest.mark.parametrize("how", ["console", "module"])
def test_it_works_from_a_console_script_and_from_a_module(
    program: Callable[..., subprocess.Popen[str]], how: str
) -> None:
    out, errors = program(stage("write", text=""), how).communicate()
    assert errors == ""
    assert out.split() == ["here", "Started", "Finished", "done"]


def _pids(folder: Path) -> list[int]:
    until((folder / "pids").exists)
    return [int(pid) for pid in (folder / "pids").read_text().split()]


def test_workers_and_their_children_end_when_the_parent_is_killed(
    program: Callable[..., subprocess.Popen[str]], store: Store, tmp_path: Path
) -> None:
    wanted = stage("wait_for", folder=str(tmp_path))
    parent = program(wanted)
    pids = _pids(tmp_path)
    assert not any(gone(pid) for pid in pids)
    parent.kill()
    parent.wait()
    until(lambda: all(gone(pid) for pid in pids), seconds=5)
    parent.communicate()
    assert not store.is_done(wanted)
    (tmp_path / "go").touch()
    outcomes, events = run(store, wanted)
    assert outcomes[wanted.key].status == "done"
    assert not any(isinstance(event, Waiting) for event in events), "an orphan holds the lock"


def test_ctrl_c_stops_everything_and_the_same_command_goes_on(
    program: Callable[..., subprocess.Popen[str]], store: Store, tmp_path: Path
) -> None:
    wanted = stage("wait_for", folder=str(tmp_path))
    parent = program(wanted)
    pids = _pids(tmp_path)
    os.killpg(parent.pid, signal.SIGINT)
    out, errors = parent.communicate(timeout=10)
    assert (errors, parent.returncode) == ("", 130)
    assert out.split() == ["here", "Started", "stopped"]
    until(lambda: all(gone(pid) for pid in pids), seconds=5)
    assert not store.is_done(wanted)
    (tmp_path / "go").touch()
    assert run(store, wanted)[0][wanted.key].status == "done"


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.1, 0.2])
def test_ctrl_c_while_a_worker_starts_shows_no_traceback_of_it(
    program: Callable[..., subprocess.Popen[str]], tmp_path: Path, delay: float
) -> None:
    parent = program(stage("wait_for", folder=str(tmp_path)))
    assert parent.stdout is not None
    assert parent.stdout.readline() == "here\n"
    time.sleep(delay)
    os.killpg(parent.pid, signal.SIGINT)
    _, errors = parent.communicate(timeout=10)
    assert (errors, parent.returncode) == ("", 130)


def test_two_runs_at_once_do_the_work_once(
    program: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    wanted = stage("write", counter=str(tmp_path / "counter"), seconds=1.0)
    ends = [run.communicate() for run in [program(wanted), program(wanted)]]
    assert [errors for _, errors in ends] == ["", ""]
    assert sorted(out.split()[-1] for out, _ in ends) == ["cached", "done"]
    assert (tmp_path / "counter").read_text().count("called") == 1
