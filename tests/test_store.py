from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import HarnessError, RequestError, StoreError
from harness.store.failures import sentence, without_secrets
from harness.store.manifest import Manifest
from harness.store.stage import Stage
from harness.store.store import Store

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def _functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(HERE)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def stage(function: str, inputs: dict[str, Stage] | None = None, **settings: Any) -> Stage:
    return Stage("try", f"try {function}", f"stage_functions:{function}", settings, inputs or {})


def counted(tmp_path: Path, **settings: Any) -> Stage:
    return stage("write", counter=str(tmp_path / "counter"), text="hello", **settings)


def calls(tmp_path: Path) -> int:
    counter = tmp_path / "counter"
    return counter.read_text().count("called") if counter.exists() else 0


PERFORM = """
import json, os, signal, sys
from pathlib import Path
from harness.store.stage import Stage
from harness.store.store import Store
root, function, settings, hook = sys.argv[1:]
stage = Stage("try", f"try {function}", f"stage_functions:{function}", json.loads(settings), {})
exec(hook)
Store.open(Path(root)).perform(stage)
"""


def start(root: Path, wanted: Stage, hook: str = "", *wrapper: str) -> subprocess.Popen[str]:
    """Another process that performs the stage."""
    function, settings = wanted.call.partition(":")[2], json.dumps(wanted.settings)
    return subprocess.Popen(
        [*wrapper, sys.executable, "-c", PERFORM, str(root), function, settings, hook],
        env={**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_stage_is_done_once(store: Store, tmp_path: Path) -> None:
    wanted = counted(tmp_path)
    assert not store.is_done(wanted)
    first = store.perform(wanted)
    assert store.is_done(wanted)
    assert store.perform(wanted) == first == store.manifest(wanted)
    assert calls(tmp_path) == 1
    assert (store.folder(wanted) / "result.txt").read_text() == "hello"


def test_the_layout_is_one_folder_per_stage_and_nothing_else_is_left(
    store: Store, tmp_path: Path
) -> None:
    wanted = counted(tmp_path)
    store.perform(wanted)
    files = {p.relative_to(store.root).as_posix() for p in store.root.rglob("*") if p.is_file()}
    folder = f"stages/try/{wanted.key}"
    assert files == {
        f"{folder}/manifest.json",
        f"{folder}/result.txt",
        f"locks/{wanted.key}.lock",
    }
    assert list((store.root / "work").iterdir()) == []


def test_a_manifest_says_how_the_result_came_about(store: Store, tmp_path: Path) -> None:
    source = counted(tmp_path)
    wanted = stage("join", {"a": source}, text="")
    store.perform(source)
    manifest = store.perform(wanted)
    written = json.loads((store.folder(wanted) / "manifest.json").read_text())
    assert written["format"] == 1
    assert manifest.key == wanted.key == written["key"]
    assert manifest.inputs == {"a": source.key}
    assert (manifest.verb, manifest.label, manifest.call) == ("try", wanted.label, wanted.call)
    assert manifest.code == wanted.code
    assert manifest.packages["torch"]
    assert manifest.facts == {"length": 5, "device": "cpu"}
    assert manifest.device == "cpu"
    assert manifest.files == {"result.txt": 5}
    assert (manifest.status, manifest.reason, manifest.attempts) == ("done", "", 1)
    assert manifest.started.endswith("+00:00")


def test_seconds_are_those_of_the_function(store: Store, tmp_path: Path) -> None:
    assert 0.2 <= store.perform(counted(tmp_path, seconds=0.2)).seconds < 2


def test_the_peak_of_memory_is_that_of_the_stage(store: Store) -> None:
    big, small = (store.perform(stage("hold", bytes=n)) for n in (100_000_000, 1))
    assert big.peak_memory is not None
    assert small.peak_memory is not None
    assert big.peak_memory > 100_000_000
    if small.peak_memory_measured == "ru_maxrss":
        pytest.skip("this kernel does not let a process reset its peak")
    assert big.peak_memory - small.peak_memory > 90_000_000


def test_the_work_is_shared_between_processes(store: Store, tmp_path: Path) -> None:
    wanted = counted(tmp_path, seconds=0.5)
    together = [start(store.root, wanted) for _ in range(3)]
    assert [process.communicate()[1] for process in together] == ["", "", ""]
    assert [process.returncode for process in together] == [0, 0, 0]
    assert calls(tmp_path) == 1
    assert store.is_done(wanted)


def test_who_waits_for_another_process_is_told(store: Store, tmp_path: Path) -> None:
    wanted = stage("wait_for", folder=str(tmp_path))
    other = start(store.root, wanted)
    _until((tmp_path / "pids").exists)
    heard: list[str] = []

    def notice(word: str) -> None:
        heard.append(word)
        (tmp_path / "go").touch()

    store.perform(wanted, notice=notice)
    assert heard == ["waiting"]
    assert other.communicate()[1] == ""


def _until(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


STEPS = 8
KILLS = [
    *(pytest.param(trap, "", id=f"at {trap}") for trap in ("0", "3", "7", "end")),
    pytest.param(
        "",
        "import harness.store.store as s; s.write_manifest = lambda *_: os.kill(os.getpid(), 9)",
        id="before the manifest",
    ),
    pytest.param(
        "", "Path.rename = lambda *_: os.kill(os.getpid(), 9)", id="before the checkpoint's rename"
    ),
    pytest.param(
        "",
        "rename = Path.rename\n"
        "def f(a, b): os.kill(os.getpid(), 9) if a.name == 'out' else rename(a, b)\n"
        "Path.rename = f",
        id="before the rename",
    ),
    pytest.param(
        "",
        "rename = Path.rename\n"
        "def f(a, b): rename(a, b); a.name == 'out' and os.kill(os.getpid(), 9)\n"
        "Path.rename = f",
        id="after the rename",
    ),
    pytest.param(
        "",
        "import shutil; remove = shutil.rmtree\n"
        "def f(a, **k): remove(a / 'scratch'); os.kill(os.getpid(), 9)\n"
        "shutil.rmtree = f",
        id="while clearing up",
    ),
]


@pytest.mark.parametrize(("trap", "hook"), KILLS)
def test_a_killed_stage_ends_with_the_bytes_of_an_undisturbed_one(
    tmp_path: Path, trap: str, hook: str
) -> None:
    (traps := tmp_path / "traps").mkdir()
    wanted = stage("climb", steps=STEPS, traps=str(traps))
    undisturbed = Store.open(tmp_path / "undisturbed")
    undisturbed.perform(wanted)
    if trap:
        (traps / trap).touch()
    killed = Store.open(tmp_path / "killed")
    process = start(killed.root, wanted, hook)
    assert process.communicate()[1] == ""
    assert process.returncode == -9
    killed_late = hook.startswith(("rename = Path.rename\ndef f(a, b): rename", "import shutil"))
    assert killed.is_done(wanted) == killed_late

    steps: list[int] = []
    killed.perform(wanted, lambda done, *_: steps.append(done))
    killed.tidy(wanted)
    assert _bytes(killed, wanted) == _bytes(undisturbed, wanted)
    assert list((killed.root / "work").iterdir()) == []
    if trap.isdigit():
        assert steps == list(range(int(trap) + 1, STEPS + 1)), "done again, or left out"


def _bytes(store: Store, wanted: Stage) -> dict[str, bytes]:
    return {
        path.name: path.read_bytes()
        for path in store.folder(wanted).iterdir()
        if path.name != "manifest.json"
    }


def test_the_manifest_of_a_resumed_stage_tells_that_its_seconds_are_not_all(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "4").touch()
    wanted = stage("climb", steps=STEPS, traps=str(tmp_path))
    start(store.root, wanted).communicate()
    assert store.perform(wanted).attempts == 2


@pytest.mark.parametrize(
    ("function", "status", "reason"),
    [
        ("diverge", "diverged", "loss is nan at step 12"),
        ("miss_the_gate", "void", "first loss 0.7, not log 2"),
    ],
)
def test_an_end_that_would_only_repeat_is_kept(
    store: Store, tmp_path: Path, function: str, status: str, reason: str
) -> None:
    wanted = stage(function, counter=str(tmp_path / "counter"), text="as far as it came")
    for _ in range(2):
        manifest = store.perform(wanted)
        assert (manifest.status, manifest.reason) == (status, reason)
    assert calls(tmp_path) == 1
    assert not store.is_done(wanted)
    assert (store.folder(wanted) / "result.txt").exists()


def test_any_other_failure_is_tried_again(store: Store) -> None:
    wanted = stage("fail", message="bad luck")
    for _ in range(2):
        with pytest.raises(ValueError, match="bad luck"):
            store.perform(wanted)
    assert store.manifest(wanted) is None


def test_nothing_is_built_on_an_input_that_is_not_done(store: Store, tmp_path: Path) -> None:
    source = stage("diverge", counter=str(tmp_path / "counter"))
    wanted = stage("join", {"runs": source}, counter=str(tmp_path / "counter"))
    for _ in range(2):
        with pytest.raises(StoreError, match=r"its runs \(try diverge\) is not done"):
            store.perform(wanted)
        store.perform(source)
    assert calls(tmp_path) == 1


def _change(**content: Any) -> Callable[[Path], object]:
    def change(path: Path) -> object:
        written = json.loads((path / "manifest.json").read_text())
        return (path / "manifest.json").write_text(json.dumps({**written, **content}))

    return change


DAMAGE: dict[str, Callable[[Path], object]] = {
    "no manifest": lambda path: (path / "manifest.json").unlink(),
    "half a manifest": lambda path: os.truncate(path / "manifest.json", 100),
    "empty manifest": lambda path: os.truncate(path / "manifest.json", 0),
    "another form": lambda path: (path / "manifest.json").write_text("[1, 2]"),
    "a field too many": _change(more=1),
    "a later format": _change(format=2),
    "another key": _change(key="0" * 20),
    "a file is gone": lambda path: (path / "result.txt").unlink(),
    "a file is cut": lambda path: os.truncate(path / "result.txt", 2),
    "all is gone": shutil.rmtree,
    "a file instead": lambda path: (shutil.rmtree(path), path.write_text("")),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_result_is_not_taken_for_one_and_made_again(
    store: Store, tmp_path: Path, damage: str
) -> None:
    wanted = counted(tmp_path)
    first = store.perform(wanted)
    DAMAGE[damage](store.folder(wanted))
    assert not store.is_done(wanted)
    assert store.manifest(wanted) is None
    assert store.perform(wanted).files == first.files
    assert calls(tmp_path) == 2
    assert store.is_done(wanted)


def test_what_was_written_is_not_done_before_it_is_in_place(store: Store, tmp_path: Path) -> None:
    wanted = counted(tmp_path)
    store.perform(wanted)
    out = store.root / "work" / wanted.key / "out"
    out.parent.mkdir()
    store.folder(wanted).rename(out)
    assert not store.is_done(wanted)
    store.perform(wanted)
    assert calls(tmp_path) == 2


def test_code_that_changed_under_a_run_makes_no_result(store: Store, tmp_path: Path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("X = 1\n")
    wanted = replace(counted(tmp_path), plugins=(plugin,))
    assert wanted.key
    wanted.__dict__["key"] = "0" * 20  # as from a run that began with other code
    with pytest.raises(HarnessError, match="changed since this run began; run the same command"):
        store.perform(wanted)
    assert calls(tmp_path) == 0


def test_facts_that_are_no_json_are_refused_by_name(store: Store) -> None:
    with pytest.raises(StoreError, match="try tell_nan: a fact is not a JSON value"):
        store.perform(stage("tell_nan"))


@pytest.mark.parametrize("kind", ["python", "torch"])
def test_memory_that_ran_out_is_said_in_words(store: Store, kind: str) -> None:
    with pytest.raises(HarnessError, match=r"memory ran out \(.*4000000000000 bytes.*fewer worker"):
        store.perform(stage("run_out_of_memory", kind=kind))


def test_a_store_that_cannot_be_made_is_refused_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"cannot keep results in .*/file/runs: Not a directory"):
        Store.open(tmp_path / "file" / "runs")


def test_a_lock_that_cannot_be_made_is_an_error_and_no_wait(store: Store, tmp_path: Path) -> None:
    shutil.rmtree(store.root / "locks")
    (store.root / "locks").write_text("")
    with pytest.raises(OSError, match=r"Not a directory|File exists"):
        store.perform(counted(tmp_path))


def test_a_full_device_is_said_in_words(store: Store) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    with pytest.raises(StoreError, match=r"no room on the disk that holds .*MB free.*make room"):
        store.perform(stage("write_to_full_device"))


def test_a_file_beyond_the_limit_is_said_in_words(store: Store) -> None:
    wanted = stage("write_much_limited", kilobytes=100)
    errors = start(store.root, wanted).communicate()[1]
    assert "StoreError" in errors
    assert "grew beyond the largest file that is allowed" in errors
    assert store.manifest(wanted) is None


def _disk(folder: Path, options: str) -> list[str]:
    """A command's beginning that gives it a small disk of its own, gone when the command ends."""
    mount = f'mount -t tmpfs -o {options} none "{folder}" && exec "$@"'
    wrapper = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    folder.mkdir()
    if (
        shutil.which("unshare") is None
        or subprocess.run([*wrapper, "true"], check=False).returncode
    ):
        pytest.skip("this system lets us mount nothing")
    return wrapper


def test_a_full_disk_is_said_in_words_and_takes_nothing_for_done(tmp_path: Path) -> None:
    wrapper = _disk(tmp_path / "disk", "size=256k")
    wanted = stage("write_much", kilobytes=400)
    process = start(tmp_path / "disk", wanted, "", *wrapper)
    error = process.communicate()[1].splitlines()[-1]
    assert error.startswith("harness.errors.StoreError: no room on the disk that holds /")
    assert error.endswith("then run the same command again; what is complete is kept")


def test_a_read_only_disk_is_refused_before_any_work(tmp_path: Path) -> None:
    wrapper = _disk(tmp_path / "disk", "ro")
    process = start(tmp_path / "disk", stage("write"), "", *wrapper)
    error = process.communicate()[1].splitlines()[-1]
    assert error.startswith("harness.errors.RequestError: cannot keep results in /")
    assert "Read-only file system; choose another folder" in error


def test_secrets_do_not_reach_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SOME_API_KEY", "sk-very-secret")
    monkeypatch.setenv("EMPTY_TOKEN", "")
    error = ValueError("Incorrect API key provided: sk-very-secret.")
    assert sentence(error, tmp_path) == "ValueError: Incorrect API key provided: $SOME_API_KEY."
    assert without_secrets("nothing") == "nothing"


def test_a_manifest_has_no_field_that_is_not_explained() -> None:
    explained = Manifest.__doc__ or ""
    unexplained = {name for name in Manifest.__annotations__ if f"{name}:" not in explained}
    assert unexplained == {"verb", "label", "python", "platform"}
