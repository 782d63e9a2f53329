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


@pytest.fixture(scope="session")
def python() -> str:
    """An interpreter that has vLLM."""
    home = Path.home() / ".cache" / "preference-harness" / "vllm"
    folder = Path(os.environ.get("HARNESS_VLLM_ENV", home))
    named = os.environ.get("HARNESS_VLLM_PYTHON", str(folder / "bin" / "python"))
    if not Path(named).exists():
        pytest.skip(f"no {named}: run `sh tests/vllm_environment.sh`, or set HARNESS_VLLM_PYTHON")
    return named
