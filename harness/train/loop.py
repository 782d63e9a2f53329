"""The one training loop: AdamW, schedule, clipping, checkpoints. It knows no loss and no data."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from harness.contracts.method import State
from harness.errors import DataError, DivergedError
from harness.train.checkpoint import History, Position, load, save

Objective: TypeAlias = Callable[[int, Sequence[int], State | None], tuple[float, State | None]]
"""(step, data rows, state) to (mean loss, next state); leaves the gradient in the parameters."""


class Companion(Protocol):
    """Something beside the model that moves with it and belongs into checkpoints."""

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """What is saved, and filled again in place."""

    def after(self, step: int) -> None:
        """Called when a step, counted from 0, has been made."""


@dataclass(frozen=True)
class Optimisation:
    """AdamW and its schedule; part of the budget, the same for every method.

    Attributes:
        learning_rate: its peak.
        warmup: share of all steps in which it rises linearly.
        clip: largest norm of the gradient; 0 turns clipping off.
    """

    learning_rate: float
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup: float = 0.1
    weight_decay: float = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip: float = 1.0

    def rate(self, step: int, steps: int) -> float:
        """Learning rate of a step (from 0): a function of the step alone, so nothing to save."""
        rising = math.ceil(self.warmup * steps - 1e-9)  # 0.07 * 100 is above 7
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        done = (step - rising) / max(1, steps - rising)
        factor = {
            "cosine": 0.5 * (1 + math.cos(math.pi * done)),
            "linear": 1 - done,
            "constant": 1.0,
        }[self.schedule]
        return self.learning_rate * factor


def order(rows: int, epochs: int, per_step: int, seed: int) -> list[list[int]]:
    """Data rows of every step: a new permutation each epoch, the incomplete last step left out.

    Raises:
        DataError: there are too few rows for one step.
    """
    rows_in_order = [
        int(row)
        for epoch in range(epochs)
        for row in np.random.default_rng([seed, epoch]).permutation(rows)
    ]
    steps = len(rows_in_order) // per_step
    if epochs and not steps:
        raise DataError(
            f"{rows} rows in {epochs} epochs make no step of {per_step}: give more data, or fewer "
            "rows per step"
        )
    return [rows_in_order[i * per_step : (i + 1) * per_step] for i in range(steps)]


def fit(
    model: nn.Module,
    steps: Sequence[Sequence[int]],
    objective: Objective,
    optimisation: Optimisation,
    *,
    scratch: Path,
    checkpoint_steps: int,
    report: Callable[[int, int, str], None],
    state: State | None = None,
    companion: Companion | None = None,
    leads: bool = True,
) -> tuple[State | None, History]:
    """Train the parameters that require a gradient, from the last checkpoint where there is one.

    A run that was killed and goes on ends with the same bits as one that was not: a checkpoint
    holds weights, optimizer, method state, companion, random state and history; the schedule and
    the data cursor are functions of the step.

    Args:
        model: whose parameters are trained.
        steps: data rows of every step.
        objective: leaves the gradient of a step in the parameters.
        optimisation: AdamW, schedule, clipping.
        scratch: where checkpoints are; every process of a run reads the same ones.
        checkpoint_steps: steps between two of them.
        report: says how far the run is.
        state: the method's, before the first step.
        companion: what moves with the model.
        leads: whether this process writes the checkpoints and reports; one of a run does.

    Raises:
        DivergedError: a loss or a gradient is not finite; says at which step.
    """
    parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.AdamW(
        parameters.values(), lr=0.0, betas=(optimisation.beta1, optimisation.beta2),
        eps=optimisation.epsilon, weight_decay=optimisation.weight_decay,
    )  # fmt: skip
    beside = companion.tensors if companion else {}
    at = load(scratch, parameters, optimizer, beside) or Position(0, state, History())
    state, history = at.state, at.history
    for step in range(at.step, len(steps)):
        loss, state = objective(step, steps[step], state)
        norm = float(nn.utils.get_total_norm(_gradients(parameters)))
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = "loss" if not math.isfinite(loss) else "gradient"
            raise DivergedError(f"{what} became {loss if what == 'loss' else norm} at step {step}")
        _apply(parameters, optimizer, optimisation, optimisation.rate(step, len(steps)), norm)
        if companion:
            companion.after(step)
        history.losses.append(loss)
        history.norms.append(norm)
        history.clipped += bool(optimisation.clip and norm > optimisation.clip)
        if not leads:
            continue
        # Others that begin again read the last checkpoint before they take part in a step, and so
        # before it is replaced.
        if (step + 1) % checkpoint_steps == 0 and step + 1 < len(steps):
            save(scratch, Position(step + 1, state, history), parameters, optimizer, beside)
        report(step + 1, len(steps), "steps")
    return state, history


def _gradients(parameters: Mapping[str, nn.Parameter]) -> list[Tensor]:
    return [p.grad for p in parameters.values() if p.grad is not None]


def _apply(
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    optimisation: Optimisation,
    rate: float,
    norm: float,
) -> None:
    if optimisation.clip and norm > optimisation.clip:
        for gradient in _gradients(parameters):
            gradient.mul_(optimisation.clip / norm)
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
