"""A worker process: carries out the stages that it is sent, one at a time, until told to end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from harness.execute.attempt import attempt
from harness.execute.events import Outcome
from harness.store.store import Store

Message = str | tuple[int, int, str] | Outcome
"""A notice of the store, progress, or the end of the stage."""

_REPORT_EVERY = 0.1  # seconds: a fast loop must not spend its time on the pipe


def serve(connection: Connection[Message, Any], store: Store) -> None:
    """The body of the worker: a stage in, messages out, an outcome last."""
    # A group of its own, so that what a stage starts itself can be ended with it, and so that a
    # Ctrl-C at the terminal reaches the parent alone, which then stops us.
    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError):  # the parent has no more
        while True:
            stage = connection.recv()
            teller = _Teller(connection)
            teller.send(attempt(stage, store, teller.report, teller.send))


class _Teller:
    """Sends from whatever thread a stage reports from, and not too often."""

    def __init__(self, connection: Connection[Message, Any]) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        self._last = 0.0

    def send(self, message: Message) -> None:
        with self._lock:
            self._connection.send(message)

    def report(self, done: int, total: int, unit: str) -> None:
        now = time.monotonic()
        if done >= total or now - self._last >= _REPORT_EVERY:
            self._last = now
            self.send((done, total, unit))


def _end_with_parent() -> None:
    """Ends this process and its children at once when the parent is gone, however it went.

    A worker that went on alone would hold locks that the next run waits for.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker is started by a pool"
    wait([parent.sentinel])
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(0, signal.SIGKILL)
    os._exit(1)
