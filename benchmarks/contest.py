"""The driver's side of a race: contestants that live at the same time and take turns."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.environments import python_of_trl
from harness.errors import RequestError
from harness.execute.crew import MEMORY

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True)
class Round:
    """What one contestant took for one round.

    Attributes:
        wall: seconds.
        cpu: seconds, of all threads.
        losses: mean loss of each step, nats.
        peak: bytes held at most since the process began.
    """

    wall: float
    cpu: float
    losses: list[float]
    peak: int


@dataclass(frozen=True)
class Result:
    """A contestant's race.

    Attributes:
        up: seconds from the start of the process until the first step could be made.
        facts: what it said when it was ready.
        warm: the first steps, not in any figure.
    """

    name: str
    up: float
    facts: Mapping[str, Any]
    warm: Round
    rounds: list[Round]

    @property
    def losses(self) -> list[float]:
        """Of all steps, nats."""
        return [loss for each in (self.warm, *self.rounds) for loss in each.losses]


def command(name: str, folder: Path, environments: Path) -> list[str]:
    """How a contestant is started: `ours/ENGINE`, `cells/ENGINE`, `trl-RELEASE/VARIANT`, ...

    `trl/VARIANT` is the TRL of this very environment, `matrix/PRECISION` only multiplies. What
    ends in `+malloc` is given the memory settings of our workers.

    Raises:
        RequestError: no contestant has such a name.
    """
    who, _, how = name.removesuffix("+malloc").partition("/")
    if who in ("ours", "cells", "matrix") and how:
        return [sys.executable, "-m", f"benchmarks.{who}", str(folder), how]
    if who == "trl" and how:
        return [sys.executable, "-m", "benchmarks.peer_trl", str(folder), how]
    if who.startswith("trl-") and how:
        python = python_of_trl(who.removeprefix("trl-"), environments)
        return [str(python), "-m", "benchmarks.peer_trl", str(folder), how]
    raise RequestError(f"no contestant '{name}': ours/padded and trl-1.8.0/best are examples")


def race(
    names: Sequence[str], folder: Path, environments: Path, *, warm: int, rounds: int, steps: int,
    threads: int = 2,
) -> list[Result]:  # fmt: skip
    """Every contestant's rounds; they are made in turn, each round by all, forth and back.

    Raises:
        RequestError: a contestant died; says where its last words are.
    """
    with ExitStack() as stack:
        running, up, facts = [], [], []
        for name in names:
            began = time.perf_counter()
            running.append(stack.enter_context(_started(name, folder, environments, threads)))
            facts.append(_answer(name, running[-1], folder))
            up.append(time.perf_counter() - began)
        warmed = [_go(n, p, folder, warm) for n, p in zip(names, running, strict=True)]
        found: list[list[Round]] = [[] for _ in names]
        for i in range(rounds):
            turn = range(len(names))
            for one in turn if i % 2 == 0 else reversed(turn):
                found[one].append(_go(names[one], running[one], folder, steps))
        for process in running:
            _tell(process, "end")
    rows = zip(names, up, facts, warmed, found, strict=True)
    return [Result(*row) for row in rows]


def _started(name: str, folder: Path, environments: Path, threads: int) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    if name.startswith(("ours/", "cells/")) or name.endswith("+malloc"):
        environment |= MEMORY
    # Not through a file descriptor of ours: a contestant's warnings must not fill the screen.
    with _log(name, folder).open("w") as log:
        return subprocess.Popen(
            command(name, folder, environments), cwd=ROOT, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
        )  # fmt: skip


def _log(name: str, folder: Path) -> Path:
    return folder / f"{name.replace('/', '-')}.log"


def _go(name: str, process: subprocess.Popen[str], folder: Path, steps: int) -> Round:
    _tell(process, f"go {steps}")
    return Round(**_answer(name, process, folder))


def _tell(process: subprocess.Popen[str], words: str) -> None:
    pipe: IO[str] | None = process.stdin
    assert pipe is not None
    print(words, file=pipe, flush=True)


def _answer(name: str, process: subprocess.Popen[str], folder: Path) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        last = _log(name, folder).read_text(encoding="utf-8").strip()[-2000:]
        raise RequestError(f"{name} ended with status {process.wait()}; its last words:\n{last}")
    answer: dict[str, Any] = json.loads(line)
    return answer
