"""One try at a stage, wherever it is carried out: whatever happens becomes an outcome."""

from __future__ import annotations

import time

from harness.execute.events import Outcome
from harness.failures import sentence, write_traceback
from harness.stage import Report, Stage
from harness.store import Notice, Store, Word


def attempt(stage: Stage, store: Store, report: Report, notice: Notice) -> Outcome:
    """Performs a stage in this process; a failure is told and ends nothing but this stage."""
    begun = False

    def heard(what: Word) -> None:
        nonlocal begun
        begun = begun or what == "started"
        notice(what)

    clock = time.monotonic()
    try:
        manifest = store.perform(stage, report, heard)
    # A library that calls sys.exit must not take the worker and its other stages with it.
    except (Exception, SystemExit) as error:
        return Outcome("failed", _told(stage, store, error), time.monotonic() - clock)
    status = manifest.status
    if status == "done" and not begun:
        return Outcome("cached", "", manifest.seconds)
    return Outcome(status, manifest.reason, manifest.seconds)


def _told(stage: Stage, store: Store, error: BaseException) -> str:
    path = store.failure(stage)
    kept = write_traceback(path, stage.label, error)
    return sentence(error, store.root) + (f" (traceback: {path})" if kept else "")
