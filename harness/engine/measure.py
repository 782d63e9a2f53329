"""What a choice of engine costs on this machine: seconds and memory of one micro-batch."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any, TypeAlias

import psutil
import torch

from harness.data.tokens import TokenPair
from harness.engine.choice import Choice, because, layers_of, prepared
from harness.engine.engines import pair_logprobs
from harness.engine.head import TILE_LOGITS
from harness.engine.obstacles import ROUNDING, obstacle
from harness.store.failures import is_memory

CANDIDATES = {"cpu": ("blocks", "sdpa", "eager"), "cuda": ("flex", "sdpa", "blocks")}
"""Trunks that are measured, by device."""

TILES = (TILE_LOGITS // 4, TILE_LOGITS, 4 * TILE_LOGITS)

ROUNDS = 3

Seen: TypeAlias = tuple[torch.Tensor, list[torch.Tensor]]
"""Log-probs of a batch, [its answers' tokens], and gradients."""

ROUNDED_TWICE = 3.0
"""How much further than uncompiled layers compiled ones may be from fp32: they round elsewhere."""

Measured = list[Mapping[str, Any]]
"""Choices and their seconds, in the order in which they were tried."""


@dataclass(frozen=True)
class Trial:
    """A model and a micro-batch on which choices are tried."""

    model: Any
    batch: Sequence[TokenPair]

    def seconds(self, choice: Choice) -> float:
        """Of one forward and one backward pass."""
        start = time.perf_counter()
        self.seen(choice)
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    def seen(self, choice: Choice) -> Seen:
        """Log-probs of both answers and the gradients of their difference, of every weight."""
        found = pair_logprobs(choice.engine, self.model, self.batch)
        values = torch.cat([side.values[side.mask] for side in (found.chosen, found.rejected)])
        torch.autograd.backward(found.chosen.total().sum() - found.rejected.total().sum())
        slopes = [p.grad for p in self.model.parameters() if p.grad is not None]
        self.model.zero_grad(set_to_none=True)
        return values.detach(), slopes

    def in_turn(self, choices: Sequence[Choice]) -> list[float]:
        """Median seconds of each choice, all of them once a round; the first round warms up."""
        rounds = [[self.seconds(choice) for choice in choices] for _ in range(ROUNDS + 1)]
        return [median(column) for column in zip(*rounds[1:], strict=True)]

    def graph_bytes(self, choice: Choice) -> int:
        """What one forward pass keeps for its backward pass; weights are not counted."""
        weights = {p.untyped_storage().data_ptr() for p in self.model.parameters()}
        kept: dict[int, int] = {}

        def note(x: torch.Tensor) -> torch.Tensor:
            kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            found = pair_logprobs(choice.engine, self.model, self.batch)
        del found  # until here: what is freed may be counted under one address with what follows
        return sum(size for at, size in kept.items() if at not in weights)


def fastest(trial: Trial, choice: Choice, micro_batches: int) -> tuple[Choice, Measured]:
    """Kernel, then tile, then compiler: each the fastest beside what was found before.

    Args:
        trial: the model as it is trained, and a micro-batch of its data.
        choice: what was chosen without measuring; it is one of those tried.
        micro_batches: of one cell; the compiler's time must be won back within them.
    """
    told: Measured = []

    def best(choices: Sequence[Choice]) -> Choice:
        seconds = trial.in_turn(choices)
        told.extend({**asdict(c), "seconds": t} for c, t in zip(choices, seconds, strict=True))
        return choices[min(range(len(choices)), key=seconds.__getitem__)]

    others = [t for t in CANDIDATES[trial.model.device.type] if t != choice.trunk]
    reasons = {trunk: obstacle(trunk, trial.model, choice.longest) for trunk in others}
    able = [trunk for trunk, reason in reasons.items() if reason is None]
    why = [f"not {trunk}: {reason}" for trunk, reason in reasons.items() if reason]
    choice = because(choice, *why)
    choice = best([choice, *(replace(choice, trunk=trunk) for trunk in able)])
    choice = best([replace(choice, tile=tile) for tile in TILES])
    compiled, record = _compiled(trial, choice, micro_batches)
    return compiled, [*told, record]


def _compiled(trial: Trial, choice: Choice, micro_batches: int) -> tuple[Choice, Mapping[str, Any]]:
    """The choice, compiled if that wins back its own time; and what it took in any case."""
    compiled = replace(choice, compiled=True)
    if not layers_of(trial.model):
        return _uncompiled(choice, "its layers cannot be told from each other")
    few = replace(trial, batch=trial.batch[:2])  # in fp32 there may be no room for all
    with torch.autocast(trial.model.device.type, enabled=False):
        exact = few.seen(choice)
    plain = few.seen(choice)
    start = time.perf_counter()
    try:
        with prepared(trial.model, compiled):
            if reason := _other_numbers(few.seen(compiled), plain, exact):
                return _uncompiled(choice, reason)
            trial.seconds(compiled)
            once = time.perf_counter() - start
            (after,) = trial.in_turn([compiled])
    except Exception as error:  # no C++ compiler, or a model that the compiler cannot take
        if is_memory(error):
            raise
        return _uncompiled(choice, type(error).__name__)
    (before,) = trial.in_turn([choice])
    pays = (before - after) * micro_batches > once
    record = {**asdict(compiled), "seconds": after, "uncompiled": before, "compilation": once}
    return (compiled if pays else choice), record


def _uncompiled(choice: Choice, reason: str) -> tuple[Choice, Mapping[str, Any]]:
    """The choice as it is, with the reason, and a record of the compiled one without seconds."""
    record = {**asdict(replace(choice, compiled=True)), "seconds": None}
    return because(choice, f"not compiled: {reason}"), record


def _other_numbers(found: Seen, plain: Seen, exact: Seen) -> str | None:
    """Why compiled layers are not the layers, in words; None if they are but for rounding.

    Args:
        found: of the compiled layers.
        plain: of the layers as written, in the same precision.
        exact: of the layers as written, in fp32.
    """
    off, noise = (float((x[0] - exact[0]).abs().max()) for x in (found, plain))
    if not off <= ROUNDED_TWICE * noise + ROUNDING[1]:
        return f"its log-probs are then {off:.2g} nats a token from those in fp32, not {noise:.2g}"
    off, noise = (_apart(x[1], exact[1]) for x in (found, plain))
    if not off <= ROUNDED_TWICE * noise + ROUNDING[1]:
        return f"its gradient is then {off:.2g} of itself from that in fp32, not {noise:.2g}"
    return None


def _apart(one: Sequence[torch.Tensor], other: Sequence[torch.Tensor]) -> float:
    """Distance between two gradients, over the length of the second; infinite if weights differ."""
    if len(one) != len(other):
        return math.inf
    off = sum(float((a - b).norm()) ** 2 for a, b in zip(one, other, strict=True))
    size = sum(float(b.norm()) ** 2 for b in other)
    return math.sqrt(off / size) if size else math.sqrt(off)


def fitted(
    choice: Choice, model: Any, longest: Sequence[TokenPair], free: int, most: int
) -> Choice:
    """The choice, with layers computed twice where the largest micro-batch would not fit.

    Args:
        choice: what is to be run.
        model: as it is trained.
        longest: the two longest pairs; what the second adds is what every further one would.
        free: bytes. Half of them: optimizer and other processes want some, too.
        most: pairs of the largest micro-batch.
    """
    if choice.name == "oracle":
        return choice
    plain = replace(choice, compiled=False)
    one, both = (Trial(model, longest[:count]).graph_bytes(plain) for count in (1, 2))
    more = both - one
    if 2 * (one + (most - 1) * more) <= free:
        return choice
    if not layers_of(model):
        return because(choice, "memory is short, and its layers cannot be computed twice")
    # Together they would be compiled anew for every length.
    return replace(choice, recompute=True, compiled=False)


def free_bytes(where: torch.device) -> int:
    """Memory of the device that nothing uses now."""
    if where.type == "cuda":
        return int(torch.cuda.mem_get_info(where)[0])
    return int(psutil.virtual_memory().available)
