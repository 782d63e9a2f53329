"""One try at a stage, wherever it is carried out: whatever happens becomes an outcome."""

from __future__ import annotations

import time

from harness.execute.events import Outcome
from harness.store.failures import sentence, write_traceback
from harness.store.stage import Report, Stage
from harness.store.store import Notice, Store, Word


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
        path = store.failure(stage)
        kept = write_traceback(path, stage.label, error)
        seconds = time.monotonic() - clock
        return Outcome("failed", sentence(error, store.root), seconds, path if kept else None)
    status = manifest.status
    if status == "done" and not begun:
        return Outcome("cached", "", manifest.seconds)
    return Outcome(status, manifest.reason, manifest.seconds)
