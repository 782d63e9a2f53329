"""`harness doctor`: what this machine can do, what is missing, and how to get it."""

from __future__ import annotations

import os
import re
import shutil
import sys
from argparse import Namespace
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from harness.errors import HarnessError
from harness.registry import found


def doctor(args: Namespace) -> int:
    """Print one line per finding. Returns 1 where something needed is missing."""
    bad = 0
    for good, text in (*_packages(), *_machine(Path(args.runs)), *_plugins()):
        bad += good is False
        print(f"{ {True: 'ok', False: 'MISSING', None: '--'}[good]:>8}  {text}")
    return 1 if bad else 0


def _packages() -> Iterator[tuple[bool | None, str]]:
    yield sys.version_info >= (3, 11), f"Python {sys.version.split()[0]} (3.11 or later)"
    for name in _needed():
        try:
            yield True, f"{name} {metadata.version(name)}"
        except metadata.PackageNotFoundError:
            yield False, f"{name}: pip install preference-harness brings it"


def _needed() -> list[str]:
    """Names of the distributions that this one asks for, without those of its extras."""
    asked = metadata.requires("preference-harness") or []
    return [re.split(r"[<>=!~;\[ ]", line)[0] for line in asked if "extra ==" not in line]


def _machine(runs: Path) -> Iterator[tuple[bool | None, str]]:
    import psutil
    import torch

    memory = psutil.virtual_memory()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield True, f"{cores} cores, {memory.available / 2**30:.1f} GiB of memory free"
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(i)
            name = torch.cuda.get_device_name(i)
            yield True, f"{name}: {free / 2**30:.0f} of {total / 2**30:.0f} GiB free"
    else:
        yield None, "no GPU: the embedded worlds run in minutes, real models are slow"
    place = next(p for p in (runs.absolute(), *runs.absolute().parents) if p.exists())
    writable = os.access(place, os.W_OK)
    free_gib = shutil.disk_usage(place).free / 2**30
    yield writable, f"{runs}: {'can' if writable else 'cannot'} be written, {free_gib:.0f} GiB free"


def _plugins() -> Iterator[tuple[bool | None, str]]:
    for kind in ("methods", "tasks"):
        try:
            yield True, f"{kind}: {', '.join(found(kind))}"
        except HarnessError as error:
            yield False, f"{kind}: {error}"
