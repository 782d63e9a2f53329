"""Checkpoints: everything that a killed run needs to end with the bits of one that was not."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from harness.contracts.method import State


@dataclass
class History:
    """What happened, step by step.

    Attributes:
        losses: mean loss of each step.
        clipped: steps whose gradient was longer than the limit.
    """

    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    clipped: int = 0


@dataclass(frozen=True)
class Position:
    """Where a run stands beside its weights: the next step, the method's state, the history.

    The schedule and the data cursor are functions of the step.
    """

    step: int
    state: State | None
    history: History


def save(
    scratch: Path,
    at: Position,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    beside: Mapping[str, Tensor],
) -> None:
    """Write aside, rename, then remove the older one: there is always a whole checkpoint."""
    previous, folder, aside = _latest(scratch), scratch / f"step-{at.step}", scratch / "writing"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    tensors: dict[str, Tensor] = {f"weight.{n}": p.detach() for n, p in parameters.items()}
    for name, parameter in parameters.items():
        moments = optimizer.state.get(parameter, {})
        tensors |= {f"adam.{key}.{name}": value for key, value in moments.items()}
    tensors |= {f"state.{name}": value for name, value in (at.state or {}).items()}
    tensors |= {f"beside.{name}": tensor.detach() for name, tensor in beside.items()}
    tensors["rng"] = torch.get_rng_state()
    tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(tensors, aside / "tensors.safetensors")
    facts = {"step": at.step, "stateful": at.state is not None, "history": vars(at.history)}
    (aside / "facts.json").write_text(json.dumps(facts))
    os.replace(aside, folder)
    if previous is not None:
        shutil.rmtree(previous)


def load(
    scratch: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    beside: Mapping[str, Tensor],
) -> Position | None:
    """Put the last checkpoint into weights, optimizer, what is beside them, and random state.

    Returns:
        where the run stands; None if there is no checkpoint.
    """
    folder = _latest(scratch)
    if folder is None:
        return None
    tensors = load_file(folder / "tensors.safetensors")
    facts: dict[str, Any] = json.loads((folder / "facts.json").read_text())
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[f"weight.{name}"])
            moments = {
                # AdamW keeps its step count on the CPU whatever the device.
                key: tensors[f"adam.{key}.{name}"].to("cpu" if key == "step" else parameter.device)
                for key in ("step", "exp_avg", "exp_avg_sq")
                if f"adam.{key}.{name}" in tensors
            }
            if moments:
                optimizer.state[parameter] = moments
        for name, tensor in beside.items():
            tensor.copy_(tensors[f"beside.{name}"])
    torch.set_rng_state(tensors["rng"])
    state = {n.removeprefix("state."): t for n, t in tensors.items() if n.startswith("state.")}
    return Position(
        facts["step"], state if facts["stateful"] else None, History(**facts["history"])
    )


def _latest(scratch: Path) -> Path | None:
    folders = [folder for folder in scratch.glob("step-*") if folder.is_dir()]
    return max(folders, key=lambda folder: int(folder.name.removeprefix("step-")), default=None)
