"""The gradient of one optimizer step: the same for any split into processes and micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeAlias

import torch
from torch import Tensor

from harness.budget import Budget
from harness.contracts.logprobs import LogProbs, PairTokens
from harness.contracts.method import Method, State
from harness.data.tokens import TokenPair
from harness.engine.engines import Also, Engine, pair_columns
from harness.errors import GateError
from harness.train.evaluate import Seen, complaint, evaluate
from harness.train.parts import Cut, exchange, join
from harness.train.team import ALONE, Team

Inputs: TypeAlias = Callable[[Sequence[int]], Mapping[str, Any]]
"""From positions within the step to what the loss reads of these pairs beside the policy."""

WITH_GRADIENT = ("policy", "divergence")
OF_THE_MODEL = ("confidence", "divergence")


@dataclass(frozen=True)
class StepResult:
    """What a step found: losses [pairs] of all processes, and the next state."""

    losses: Tensor
    state: State | None


@dataclass(frozen=True)
class Learner:
    """A model, the engine that reads its log-probs, and the loss that moves it.

    Attributes:
        micro_pairs: the most pairs that are in memory with a graph at the same time.
        reference: a reference in memory, for a method that reads `divergence` or moves it.
        micro_tokens: the most tokens of them.
        team: the processes that train this model.
    """

    engine: Engine
    model: Any
    method: Method
    settings: Mapping[str, Any]
    micro_pairs: int
    reference: Any | None = None
    micro_tokens: int = Budget.micro_tokens
    team: Team = ALONE

    @property
    def cut(self) -> Cut:
        """How what all processes do together is cut."""
        return Cut(self.micro_pairs, self.micro_tokens, self.team)

    @property
    def together(self) -> Team:
        """Who computes what a loss reads in a step: all, of the whole step, or each for itself."""
        return self.team if self.method.whole_step else ALONE

    @cached_property
    def _also(self) -> Also:
        reads = self.method.narrowed(self.settings).reads
        return Also(tuple(name for name in OF_THE_MODEL if name in reads), self.reference)

    def see(self, pairs: Sequence[TokenPair]) -> dict[str, PairTokens]:
        """What the loss reads of the model, of both answers of every pair of a micro-batch."""
        found = pair_columns(self.engine, self.model, pairs, self._also)
        return {"policy": found.pop("logprobs"), **found}

    def see_all(self, pairs: Sequence[TokenPair]) -> dict[str, PairTokens]:
        """The same of any number of pairs; all processes ask for it, with the same pairs."""
        return self.cut.see(self.see, pairs, self._names)

    @property
    def _names(self) -> tuple[str, ...]:
        return ("policy", *self._also.names)

    def accumulate_gradient(
        self, pairs: Sequence[TokenPair], inputs: Inputs, state: State | None
    ) -> StepResult:
        """Add the gradient of the mean loss over the step's pairs to the model's parameters.

        A method whose losses hang together sees the whole step at once: its log-probs first, of
        all processes and without a graph, then one loss, then each micro-batch again with the
        cotangents of its log-probs. Any other method is split freely.

        Args:
            pairs: of all processes; each has the same ones, and takes its share.
            inputs: is asked for the whole step in every process, or for single micro-batches.
            state: the same in all processes, as is the next one.

        Raises:
            GateError: the loss does not depend on the policy.
        """
        assert self.team.size == 1 or all(p.grad is None for p in self.model.parameters()), (
            "what was there before would be counted once for every process"
        )
        batches = self.cut.batches(pairs)
        if self.method.whole_step:
            result = self._group(pairs, range(len(pairs)), batches, inputs, state)
        else:
            found = [self._group(pairs, batch, [batch], inputs, state) for batch in batches]
            losses = torch.cat([each.losses.double() for each in found])
            result = StepResult(self.team.whole(losses, len(pairs)), found[-1].state)
        self.team.add_gradients(self.model.parameters())
        return result

    def _group(
        self,
        pairs: Sequence[TokenPair],
        span: range,
        batches: Sequence[range],
        inputs: Inputs,
        state: State | None,
    ) -> StepResult:
        """The gradient of what the pairs of `span` add to the mean, through own micro-batches."""
        once = len(batches) == 1
        with torch.set_grad_enabled(once):
            own = join([self.see(_some(pairs, batch)) for batch in batches])
        seen = exchange(own, _some(pairs, span), self._names, self.together)
        leaves = {
            name: _leaf(pair) if name in WITH_GRADIENT else pair for name, pair in seen.items()
        }
        losses, after = evaluate(self.method, self.settings, leaves, inputs(span), state)
        if not losses.requires_grad:
            raise GateError(complaint(self.method, "the loss does not depend on the policy"))
        torch.autograd.backward(losses.sum() / len(pairs))
        for batch in batches:
            rows = slice(batch.start - span.start, batch.stop - span.start)
            _backward(own if once else self.see(_some(pairs, batch)), leaves, rows)
        return StepResult(losses.detach(), after)


def _some(pairs: Sequence[TokenPair], rows: range) -> Sequence[TokenPair]:
    return pairs[rows.start : rows.stop]


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
