"""Ragged arrays on disk: token ids and per-token numbers of sequences of unequal length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

Ragged = list[NDArray[Any]]


def save_ragged(path: Path, **columns: Sequence[Any]) -> None:
    """Write each column (a list of 1-D arrays) as its values and its offsets."""
    tensors: dict[str, NDArray[Any]] = {}
    for name, rows in columns.items():
        arrays = [np.asarray(row) for row in rows]
        # An empty list has a type too, fp64: it must not become that of the other rows.
        filled = [array for array in arrays if len(array)] or arrays[:1]
        tensors[f"{name}.values"] = np.concatenate(filled) if filled else np.zeros(0)
        tensors[f"{name}.offsets"] = np.cumsum([0, *(len(a) for a in arrays)], dtype=np.int64)
    save_file(tensors, path)


def load_ragged(path: Path) -> Mapping[str, Ragged]:
    """Read the columns written by `save_ragged`."""
    tensors = load_file(path)
    return {
        name.removesuffix(".offsets"): np.split(
            tensors[name.removesuffix("offsets") + "values"], offsets[1:-1]
        )
        if len(offsets) > 1
        else []
        for name, offsets in tensors.items()
        if name.endswith(".offsets")
    }
