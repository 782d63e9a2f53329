"""Where the numbers are computed, and in which precision."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from typing import Any

import torch
from accelerate import PartialState

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}


def device() -> torch.device:
    """The process's device, as accelerate assigns it."""
    return torch.device(PartialState().device)


def precision(where: torch.device, name: str) -> AbstractContextManager[Any]:
    """Run the model under this precision: weights stay fp32, bf16 is autocast."""
    # Without autocast's cache of narrow weights: it lasts until the context ends, and a whole
    # training run is in one, so that the model would never see what the optimizer did.
    return torch.autocast(
        where.type, dtype=PRECISIONS[name], enabled=name != "fp32", cache_enabled=False
    )


def facts(where: torch.device) -> dict[str, Any]:
    """What a manifest says of the machine's part in the numbers."""
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else "cpu"
    return {"device": name, "threads": torch.get_num_threads()}


def exactly() -> None:
    """Ask for kernels that give the same bits every time, or an error where there are none."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # or cuBLAS refuses
    torch.use_deterministic_algorithms(True)
    # Else every new tensor is filled before it is written, large ones at a cost that shows.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
