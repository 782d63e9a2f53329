"""What a choice of engine costs on this machine: seconds and memory of one micro-batch."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import psutil
import torch

from harness.data.tokens import TokenPair
from harness.engine.choice import Choice, obstacle, prepared
from harness.engine.engines import pair_logprobs
from harness.engine.head import TILE_LOGITS
from harness.store.failures import is_memory

CANDIDATES = {"cpu": ("blocks", "sdpa", "eager"), "cuda": ("flex", "sdpa", "blocks")}
"""Trunks that are measured, by device."""

TILES = (TILE_LOGITS // 4, TILE_LOGITS, 4 * TILE_LOGITS)

ROUNDS = 3

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
        found = pair_logprobs(choice.engine, self.model, self.batch)
        torch.autograd.backward(found.chosen.total().sum() - found.rejected.total().sum())
        if self.model.device.type == "cuda":
            torch.cuda.synchronize()
        self.model.zero_grad(set_to_none=True)
        return time.perf_counter() - start

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
    why = [choice.why, *(f"not {trunk}: {reason}" for trunk, reason in reasons.items() if reason)]
    choice = replace(choice, why="; ".join(filter(None, why)))
    choice = best([choice, *(replace(choice, trunk=trunk) for trunk in able)])
    choice = best([replace(choice, tile=tile) for tile in TILES])
    compiled, record = _compiled(trial, choice, micro_batches)
    return compiled, [*told, record]


def _compiled(trial: Trial, choice: Choice, micro_batches: int) -> tuple[Choice, Mapping[str, Any]]:
    """The choice, compiled if that wins back its own time; and what it took in any case."""
    compiled = replace(choice, compiled=True)
    start = time.perf_counter()
    try:
        with prepared(trial.model, compiled):
            trial.seconds(compiled)
            once = time.perf_counter() - start
            (after,) = trial.in_turn([compiled])
    except Exception as error:  # no C++ compiler, or a model that the compiler cannot take
        if is_memory(error):
            raise
        reason = f"not compiled: {type(error).__name__}"
        choice = replace(choice, why="; ".join(filter(None, (choice.why, reason))))
        return choice, {**asdict(compiled), "seconds": None}
    (before,) = trial.in_turn([choice])
    pays = (before - after) * micro_batches > once
    record = {**asdict(compiled), "seconds": after, "uncompiled": before, "compilation": once}
    return (compiled if pays else choice), record


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
    # Together they would be compiled anew for every length.
    return replace(choice, recompute=True, compiled=False)


def free_bytes(where: torch.device) -> int:
    """Memory of the device that nothing uses now."""
    if where.type == "cuda":
        return int(torch.cuda.mem_get_info(where)[0])
    return int(psutil.virtual_memory().available)
