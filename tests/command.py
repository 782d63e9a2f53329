"""The command line as a user has it: another process, a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PLANTED = Path(__file__).parent / "planted"

SMOKE = ("--budget", "smoke", "--tasks", "sentiment-high", "--seeds", "2", "--workers", "2")


def harness(
    folder: Path, *arguments: str, timeout: float = 600
) -> subprocess.CompletedProcess[str]:
    """Run `harness` with these arguments in this folder."""
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", *arguments], cwd=folder, env=environment(),
        capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def environment() -> dict[str, str]:
    """The caller's environment; no hub can be reached."""
    return {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "default"}


def written(folder: Path) -> list[str]:
    """Names of everything in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())
