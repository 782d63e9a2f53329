"""Small real stages, importable by the workers that the tests start."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

from harness.errors import DivergedError, GateError
from harness.store.stage import Work


def write(work: Work) -> dict[str, object]:
    """Writes the given text, and a line into a file that counts the calls."""
    if "counter" in work.settings:
        with Path(work.settings["counter"]).open("a") as file:
            file.write("called\n")
    time.sleep(work.settings.get("seconds", 0))
    text = work.settings.get("text", "")
    (work.out / "result.txt").write_text(text)
    return {"length": len(text), "device": "cpu"}


def told(work: Work) -> dict[str, object]:
    """The facts that it is given."""
    return dict(work.settings["facts"])


def join(work: Work) -> dict[str, object]:
    """The texts of all inputs, one after the other."""
    texts = [(work.inputs[name] / "result.txt").read_text() for name in sorted(work.inputs)]
    return write(Work({**work.settings, "text": "+".join(texts)}, {}, work.out, work.out, print))


def climb(work: Work) -> dict[str, object]:
    """Many dependent steps with a checkpoint after each; killed where a trap is laid."""
    traps, state = Path(work.settings["traps"]), work.scratch / "state.json"
    step, value = json.loads(state.read_text()) if state.exists() else (0, "start")
    (work.out / f"half-written-{os.getpid()}").touch()
    while step < work.settings["steps"]:
        _fall_into(traps / str(step))
        value = hashlib.sha256(f"{value}{step}".encode()).hexdigest()
        step += 1
        fresh = state.with_suffix(".new")
        fresh.write_text(json.dumps([step, value]))
        fresh.rename(state)
        work.report(step, work.settings["steps"], "steps")
    for file in work.out.glob("half-written-*"):
        if file.name == f"half-written-{os.getpid()}":
            file.unlink()
    (work.out / "result.txt").write_text(value)
    _fall_into(traps / "end")
    return {"steps": step}


def _fall_into(trap: Path) -> None:
    if trap.exists():
        trap.unlink()
        os.kill(os.getpid(), signal.SIGKILL)


def wait_for(work: Work) -> dict[str, object]:
    """Says its process id, and that of a child, then waits for a file that may never come."""
    folder = Path(work.settings["folder"])
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    (folder / "pids.new").write_text(f"{os.getpid()} {child.pid}")
    (folder / "pids.new").rename(folder / "pids")
    while not (folder / "go").exists():
        time.sleep(0.02)
    child.kill()
    child.wait()
    return write(work)


def meet(work: Work) -> dict[str, object]:
    """Ends only if another stage with the same folder runs at the same time."""
    folder, names = Path(work.settings["folder"]), work.settings["names"]
    (folder / work.settings["name"]).touch()
    while not all((folder / name).exists() for name in names):
        time.sleep(0.01)
    return {}


def end_by_signal(work: Work) -> dict[str, object]:
    os.kill(os.getpid(), work.settings["signal"])
    time.sleep(60)
    return {}


def end_by_signal_leaving_a_child(work: Work) -> dict[str, object]:
    """The child is a fork: it holds all pipes and the lock of its parent open."""
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def leave(work: Work) -> dict[str, object]:
    sys.exit("the library had enough")


def exit_at_once(work: Work) -> dict[str, object]:
    os._exit(3)


def fail(work: Work) -> dict[str, object]:
    raise ValueError(work.settings["message"])


def diverge(work: Work) -> dict[str, object]:
    write(work)
    raise DivergedError("loss is nan at step 12")


def miss_the_gate(work: Work) -> dict[str, object]:
    write(work)
    raise GateError("first loss 0.7, not log 2")


def run_out_of_memory(work: Work) -> dict[str, object]:
    raise {"python": MemoryError, "torch": RuntimeError}[work.settings["kind"]](
        "[enforce fail at alloc_cpu.cpp:117] . DefaultCPUAllocator: can't allocate memory: you "
        "tried to allocate 4000000000000 bytes. Error code 12 (Cannot allocate memory)"
    )


def hold(work: Work) -> dict[str, object]:
    """Holds so many bytes, touched, for a moment."""
    return {"length": len(b"x" * work.settings["bytes"])}


def write_much(work: Work) -> dict[str, object]:
    with (work.out / "much").open("wb") as file:
        for _ in range(work.settings["kilobytes"]):
            file.write(b"x" * 1024)
            file.flush()
    return {}


def write_much_limited(work: Work) -> dict[str, object]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
    return write_much(work)


def write_to_full_device(work: Work) -> dict[str, object]:
    Path("/dev/full").write_text("x")
    return {}


def tell_nan(work: Work) -> dict[str, object]:
    return {"loss": float("nan")}


def environment(work: Work) -> dict[str, object]:
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
    return {"pid": os.getpid(), **{name: os.environ.get(name) for name in names}}
