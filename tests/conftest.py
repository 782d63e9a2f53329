"""What several test files need."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference numbers, data and models that stands outside this repository."""
    beside = Path(__file__).parents[2] / "shared"
    folder = Path(os.environ.get("HARNESS_SHARED", beside))
    if not folder.is_dir():
        pytest.skip(f"no folder {folder}: name it in HARNESS_SHARED")
    return folder
