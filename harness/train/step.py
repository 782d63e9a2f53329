"""The gradient of one optimizer step: the same for any split of the step into micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import pad

from harness.contracts.logprobs import LogProbs, PairLogProbs
from harness.contracts.method import Method, State
from harness.data.tokens import TokenPair
from harness.errors import GateError
from harness.train.engine import Engine, pair_logprobs

Inputs: TypeAlias = Callable[[Sequence[int]], Mapping[str, Any]]
"""From positions within the step to what the loss reads of these pairs beside the policy."""


@dataclass(frozen=True)
class StepResult:
    """What a step found: losses [pairs], the policy's log-probs (detached) and the next state."""

    losses: Tensor
    policy: PairLogProbs
    state: State | None


@dataclass(frozen=True)
class Learner:
    """A model, the engine that reads its log-probs, and the loss that moves it.

    Attributes:
        micro_pairs: pairs that are in memory with a graph at the same time.
    """

    engine: Engine
    model: Any
    method: Method
    settings: Mapping[str, Any]
    micro_pairs: int

    def logprobs(self, pairs: Sequence[TokenPair]) -> PairLogProbs:
        """The model's log-probs of both answers of every pair."""
        return pair_logprobs(self.engine, self.model, pairs)

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
        return StepResult(losses, join([result.policy for result in results]), results[-1].state)

    def _group(
        self,
        pairs: Sequence[TokenPair],
        group: Sequence[Sequence[int]],
        inputs: Inputs,
        state: State | None,
    ) -> StepResult:
        batches = [[pairs[i] for i in batch] for batch in group]
        with torch.set_grad_enabled(len(group) == 1):
            policy = join([self.logprobs(batch) for batch in batches])
        leaf = PairLogProbs(_leaf(policy.chosen), _leaf(policy.rejected))
        given = inputs([i for batch in group for i in batch])
        losses, after = evaluate(self.method, self.settings, leaf, given, state)
        if not losses.requires_grad:
            raise GateError(f"method '{self.method.name}': the loss does not depend on the policy")
        torch.autograd.backward(losses.sum() / len(pairs))
        if len(group) == 1:
            _backward(policy, leaf, slice(None))
        else:
            start = 0
            for batch in batches:
                _backward(self.logprobs(batch), leaf, slice(start, start + len(batch)))
                start += len(batch)
        return StepResult(losses.detach(), leaf.detach(), after)


def evaluate(
    method: Method,
    settings: Mapping[str, Any],
    policy: PairLogProbs,
    given: Mapping[str, Any],
    state: State | None,
) -> tuple[Tensor, State | None]:
    """Losses [pairs] and the state after them, without a graph; what came in is not touched.

    Raises:
        GateError: the method did not return one loss per pair, so that their mean is another.
    """
    after = None
    if "state" not in method.reads:
        losses = method.losses(settings, policy=policy, **given)
    else:
        losses, after = method.losses(settings, policy=policy, **given, state=state)
        after = {name: value.detach() for name, value in after.items()}
    if losses.shape != policy.chosen.mask.shape[:1]:
        raise GateError(
            f"method '{method.name}' returned losses of shape {list(losses.shape)} for "
            f"{len(policy.chosen.mask)} pairs: it must return one loss per pair"
        )
    return losses, after


def _leaf(logprobs: LogProbs) -> LogProbs:
    return LogProbs(logprobs.values.detach().requires_grad_(), logprobs.mask)


def _backward(policy: PairLogProbs, leaf: PairLogProbs, rows: slice) -> None:
    """Send the cotangents of the given rows, found at the leaf, through the policy's graph."""
    sides = ((policy.chosen, leaf.chosen), (policy.rejected, leaf.rejected))
    used = [(side, found.values.grad) for side, found in sides if found.values.grad is not None]
    torch.autograd.backward(
        [side.values for side, _ in used],
        [gradient[rows, : side.values.shape[1]] for side, gradient in used],
    )


def join(parts: Sequence[PairLogProbs]) -> PairLogProbs:
    """Log-probs of several micro-batches as those of one batch, padded to a common width."""
    return PairLogProbs(
        _join([part.chosen for part in parts]), _join([part.rejected for part in parts])
    )


def _join(parts: Sequence[LogProbs]) -> LogProbs:
    width = max(part.values.shape[1] for part in parts)
    widths = [(0, width - part.values.shape[1]) for part in parts]
    return LogProbs(
        torch.cat([pad(part.values, w) for part, w in zip(parts, widths, strict=True)]),
        torch.cat([pad(part.mask, w) for part, w in zip(parts, widths, strict=True)]),
    )
