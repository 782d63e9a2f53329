"""The gradient of one optimizer step: the same for any split of the step into micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

from harness.contracts.logprobs import LogProbs, PairTokens
from harness.contracts.method import Method, State
from harness.data.tokens import TokenPair
from harness.errors import GateError
from harness.train.engine import Also, Engine, pair_columns
from harness.train.evaluate import Seen, complaint, evaluate

Inputs: TypeAlias = Callable[[Sequence[int]], Mapping[str, Any]]
"""From positions within the step to what the loss reads of these pairs beside the policy."""

WITH_GRADIENT = ("policy", "divergence")
OF_THE_MODEL = ("confidence", "divergence")


@dataclass(frozen=True)
class StepResult:
    """What a step found: losses [pairs], what it saw (detached) and the next state."""

    losses: Tensor
    seen: Seen
    state: State | None


@dataclass(frozen=True)
class Learner:
    """A model, the engine that reads its log-probs, and the loss that moves it.

    Attributes:
        micro_pairs: pairs that are in memory with a graph at the same time.
        reference: a reference in memory, for a method that reads `divergence` or moves it.
    """

    engine: Engine
    model: Any
    method: Method
    settings: Mapping[str, Any]
    micro_pairs: int
    reference: Any | None = None

    @cached_property
    def _also(self) -> Also:
        reads = self.method.narrowed(self.settings).reads
        return Also(tuple(name for name in OF_THE_MODEL if name in reads), self.reference)

    def see(self, pairs: Sequence[TokenPair]) -> dict[str, PairTokens]:
        """What the loss reads of the model, of both answers of every pair."""
        found = pair_columns(self.engine, self.model, pairs, self._also)
        return {"policy": found.pop("logprobs"), **found}

    def accumulate_gradient(
        self, pairs: Sequence[TokenPair], inputs: Inputs, state: State | None
    ) -> StepResult:
        """Add the gradient of the mean loss over the step's pairs to the model's parameters.

        A method whose losses hang together sees the whole step at once: its log-probs first,
        without a graph, then one loss, then each micro-batch again with the cotangents of its
        log-probs. Any other method is split freely.

        Raises:
            GateError: the loss does not depend on the policy.
        """
        everything, size = range(len(pairs)), self.micro_pairs
        micro_batches = [everything[i : i + size] for i in everything[::size]]
        groups = [micro_batches] if self.method.whole_step else [[b] for b in micro_batches]
        results = [self._group(pairs, group, inputs, state) for group in groups]
        losses = torch.cat([result.losses for result in results])
        return StepResult(losses, join([result.seen for result in results]), results[-1].state)

    def _group(
        self,
        pairs: Sequence[TokenPair],
        group: Sequence[Sequence[int]],
        inputs: Inputs,
        state: State | None,
    ) -> StepResult:
        batches = [[pairs[i] for i in batch] for batch in group]
        with torch.set_grad_enabled(len(group) == 1):
            seen = join([self.see(batch) for batch in batches])
        leaves = {
            name: _leaf(pair) if name in WITH_GRADIENT else pair for name, pair in seen.items()
        }
        given = inputs([i for batch in group for i in batch])
        losses, after = evaluate(self.method, self.settings, leaves, given, state)
        if not losses.requires_grad:
            raise GateError(complaint(self.method, "the loss does not depend on the policy"))
        torch.autograd.backward(losses.sum() / len(pairs))
        if len(group) == 1:
            _backward(seen, leaves, slice(None))
        else:
            start = 0
            for batch in batches:
                _backward(self.see(batch), leaves, slice(start, start + len(batch)))
                start += len(batch)
        detached = {name: pair.detach() for name, pair in leaves.items()}
        return StepResult(losses.detach(), detached, after)


def _leaf(pair: PairTokens) -> PairTokens:
    sides = (pair.chosen, pair.rejected)
    return PairTokens(*(LogProbs(s.values.detach().requires_grad_(), s.mask) for s in sides))


def _backward(seen: Seen, leaves: Seen, rows: slice) -> None:
    """Send the cotangents of the given rows, found at the leaves, through the model's graph."""
    sides = [
        side
        for name in WITH_GRADIENT if name in seen
        for side in (
            (seen[name].chosen, leaves[name].chosen), (seen[name].rejected, leaves[name].rejected)
        )
    ]  # fmt: skip
    used = [(side, found.values.grad) for side, found in sides if found.values.grad is not None]
    torch.autograd.backward(
        [side.values for side, _ in used],
        [gradient[rows, : side.values.shape[1]] for side, gradient in used],
    )


def join(parts: Sequence[Seen]) -> dict[str, PairTokens]:
    """What was seen of several micro-batches as of one batch, padded to a common width."""
    return {
        name: PairTokens(
            _join([part[name].chosen for part in parts]),
            _join([part[name].rejected for part in parts]),
        )
        for name in parts[0]
    }


def _join(parts: Sequence[LogProbs]) -> LogProbs:
    width = max(part.values.shape[1] for part in parts)
    widths = [(0, width - part.values.shape[1]) for part in parts]
    return LogProbs(
        torch.cat([pad(part.values, w) for part, w in zip(parts, widths, strict=True)]),
        torch.cat([pad(part.mask, w) for part, w in zip(parts, widths, strict=True)]),
    )
