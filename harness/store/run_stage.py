"""Calls a stage's function and writes down how that went."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from harness.errors import DivergedError, GateError
from harness.store.manifest import NAME, Ending, Manifest, sizes
from harness.store.peak_memory import peak, restart_peak
from harness.store.stage import Stage, Work, package_versions


def run_stage(stage: Stage, work: Work) -> Manifest:
    """The manifest of what the stage's function has now written to `work.out`.

    Raises:
        Exception: what the function raised, but for the two ends that a second try would repeat.
    """
    attempts = _count(work.scratch.with_name("attempts"))
    started, clock, restarted = datetime.now(UTC), time.monotonic(), restart_peak()
    status, reason, facts = _call(stage.call, work)
    memory = peak(restarted=restarted)
    files = sizes(work.out)
    assert NAME not in files, f"{stage.call} wrote a {NAME}: that name is the store's"
    return Manifest(
        key=stage.key,
        verb=stage.verb,
        label=stage.label,
        call=stage.call,
        settings=stage.settings,
        inputs={name: source.key for name, source in stage.inputs.items()},
        code=stage.code,
        packages=package_versions(),
        python=platform.python_version(),
        platform=platform.platform(),
        device=facts.get("device"),
        started=started.isoformat(timespec="seconds"),
        seconds=round(time.monotonic() - clock, 3),
        attempts=attempts,
        peak_memory=memory.size,
        peak_memory_measured=memory.measured,
        status=status,
        reason=reason,
        facts=facts,
        files=files,
    )


def _call(call: str, work: Work) -> tuple[Ending, str, Mapping[str, Any]]:
    module, _, name = call.partition(":")
    function = cast(Callable[[Work], Mapping[str, Any]], getattr(import_module(module), name))
    try:
        return "done", "", dict(function(work))
    except DivergedError as error:
        return "diverged", str(error), {}
    except GateError as error:
        return "void", str(error), {}


def _count(path: Path) -> int:
    """One more attempt; how many there were."""
    with path.open("a", encoding="ascii") as file:
        file.write(".")
    return path.stat().st_size
