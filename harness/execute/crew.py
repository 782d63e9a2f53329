"""Worker processes, as their parent sees them: started when needed, replaced when lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import TracebackType
from typing import Any, Self

from harness.execute.events import Outcome
from harness.execute.worker import Message, serve
from harness.store.stage import Stage
from harness.store.store import Store

MEMORY = {
    # glibc keeps freed memory for the next step, which would else fault every page in again.
    "MALLOC_MMAP_THRESHOLD_": "8589934592",
    "MALLOC_TRIM_THRESHOLD_": "8589934592",
    # Every new length of an answer makes new kernels of 0.6 MB each, and most never come again.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256",
}
"""What keeps memory in use and small; to be set before a process begins."""

_ENVIRONMENT = {
    **MEMORY,
    "OMP_NUM_THREADS": "1",  # as many workers as cores: more threads would only wait
    "MKL_NUM_THREADS": "1",
    "PYTHONHASHSEED": "0",  # the order of a set must not move a number
    "PYTHONFAULTHANDLER": "1",  # a crash in a library says where it was
}
_CHECK_EVERY = 1.0  # seconds
_PATIENCE = 5.0  # seconds for an idle worker to end by itself


@dataclass(eq=False)
class _Worker:
    process: BaseProcess
    connection: Connection[Any, Message]
    stage: Stage | None = None


class Crew:
    """At most `limit` workers. Leaving the `with` block ends them all, and what they started."""

    def __init__(self, limit: int, store: Store) -> None:
        self._limit = limit
        self._store = store
        self._workers: list[_Worker] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None:
            for worker in self._workers:
                worker.connection.close()
            for worker in self._workers:
                worker.process.join(_PATIENCE)
        while self._workers:
            self._dismiss(self._workers[-1])

    def has_room(self) -> bool:
        """Whether another stage can begin now."""
        return sum(worker.stage is not None for worker in self._workers) < self._limit

    def give(self, stage: Stage) -> None:
        """Hands a stage to an idle worker, or to a new one."""
        worker = self._idle() or self._hire()
        worker.stage = stage
        with suppress(OSError):  # it died; `hear` finds that out and says so
            worker.connection.send(stage)

    def hear(self) -> list[tuple[Stage, Message]]:
        """What the workers said since; waits until one says something or dies."""
        busy = [worker for worker in self._workers if worker.stage is not None]
        # Neither need show that a worker died whose own children live on and hold the pipes open;
        # so it is asked for every second, too.
        wait([x for w in busy for x in (w.connection, w.process.sentinel)], _CHECK_EVERY)
        return [heard for worker in busy for heard in self._hear(worker)]

    def _hear(self, worker: _Worker) -> Iterator[tuple[Stage, Message]]:
        stage = worker.stage
        assert stage is not None, "only a busy worker is listened to"
        died = not worker.process.is_alive()  # before reading: its last words count
        try:
            while worker.stage is not None and worker.connection.poll():
                message = worker.connection.recv()
                if isinstance(message, Outcome):
                    self._release(worker, message)
                yield stage, message
        except (EOFError, OSError):
            died = True
        if died and worker.stage is not None:
            yield stage, Outcome("failed", _cause_of_death(self._dismiss(worker, _PATIENCE)))

    def _release(self, worker: _Worker, outcome: Outcome) -> None:
        worker.stage = None
        # What a failed stage left behind (a broken CUDA context, memory that nothing frees) must
        # not reach the next one.
        if outcome.status == "failed":
            self._dismiss(worker)

    def _idle(self) -> _Worker | None:
        for worker in [worker for worker in self._workers if worker.stage is None]:
            if worker.process.is_alive():
                return worker
            self._dismiss(worker)
        return None

    def _hire(self) -> _Worker:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=serve, args=(theirs, self._store))
        with theirs, _surroundings():
            process.start()
            self._workers.append(_Worker(process, ours))  # before a Ctrl-C can come between
        return self._workers[-1]

    def _dismiss(self, worker: _Worker, patience: float = 0.0) -> int | None:
        """Ends a worker and whatever it started; its exit status, negative for a signal."""
        assert worker.process.pid is not None, "a worker was started"
        worker.process.join(patience)
        worker.process.kill()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(worker.process.pid, signal.SIGKILL)
        worker.process.join()
        status = worker.process.exitcode
        worker.connection.close()
        self._workers.remove(worker)  # not before: a Ctrl-C in between must find it again
        worker.process.close()
        return status


def _cause_of_death(status: int | None) -> str:
    if status == -signal.SIGKILL:
        return "killed by signal 9, most often because memory ran out: use fewer workers"
    if status is not None and status < 0:
        return f"killed by signal {-status} ({signal.strsignal(-status)})"
    return f"its process ended with status {status} and said nothing"


@contextmanager
def _surroundings() -> Iterator[None]:
    """What a worker is born with: its environment, and no ear for Ctrl-C."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    resource_tracker.ensure_running()  # else it is started below and lets Ctrl-C through again
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
