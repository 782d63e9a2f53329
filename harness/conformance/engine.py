"""A real engine around the loss: a tiny causal model, its reference, pairs, and training steps."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from harness.conformance.subject import Subject
from harness.contracts.logprobs import LogProbs, PairTokens
from harness.contracts.method import State
from harness.data.tokens import TokenPair
from harness.engine.engines import Also, padded, pair_columns
from harness.train.evaluate import evaluate
from harness.train.loop import Optimisation, fit
from harness.train.step import Learner

PAIRS = 12
VOCABULARY = 29
STEPS: Sequence[Sequence[int]] = ((0, 1, 2), (3, 4, 5), (6, 7, 8), (2, 5, 1))
"""Rows of the training steps."""

HELD_OUT = (9, 10, 11)
"""Rows that evaluation looks at and training never does."""


class _Interruption(BaseException):
    """A run is killed here; nobody may catch it for an error of the method."""


@dataclass(frozen=True)
class World:
    """All that does not depend on the method.

    Attributes:
        columns: what is read beside the policy, of all pairs, by the names of the vocabulary.
    """

    policy: Any
    reference: Any
    pairs: Sequence[TokenPair]
    columns: Mapping[str, Any]

    def given(self, rows: Sequence[int], step: int, reads: Sequence[str]) -> dict[str, Any]:
        """What a loss reads beside what it sees of the model, of these rows in this step."""
        found = {name: _rows(self.columns[name], rows) for name in reads if name in self.columns}
        if "rng" in reads:
            found["rng"] = torch.Generator().manual_seed(step)
        return found


@dataclass(frozen=True)
class Step:
    """What one training step came to."""

    losses: Tensor
    gradient: Tensor
    state: State | None


def one_step(subject: Subject, rows: Sequence[int], micro_pairs: int, state: State | None) -> Step:
    """The step's gradient through the model, in micro-batches of a size; the weights stay."""
    model = copy.deepcopy(world().policy)
    learner = _learner(subject, model, micro_pairs)
    found = learner.accumulate_gradient(
        [world().pairs[row] for row in rows],
        lambda within: world().given([rows[i] for i in within], 0, subject.reads),
        state,
    )
    slopes = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return Step(found.losses, torch.cat(slopes), found.state)


@dataclass(frozen=True)
class Trained:
    """Weights and memory after all steps, and the mean loss of each."""

    weights: Mapping[str, Tensor]
    state: State
    losses: Tensor


def trained(subject: Subject, *, killed: bool = False, evaluated: bool = False) -> Trained:
    """Train a fresh copy of the model for all steps.

    Args:
        subject: the method.
        killed: the process ends after half of them, and another goes on from the checkpoint.
        evaluated: held-out pairs are evaluated between the steps.
    """
    with TemporaryDirectory() as folder:
        scratch = Path(folder)
        if killed:
            with suppress(_Interruption):
                _fit(subject, scratch, stop_after=2, evaluated=evaluated)
        return _fit(subject, scratch, stop_after=None, evaluated=evaluated)


def _fit(subject: Subject, scratch: Path, *, stop_after: int | None, evaluated: bool) -> Trained:
    model = copy.deepcopy(world().policy)
    learner = _learner(subject, model, 2)

    def objective(
        step: int, rows: Sequence[int], state: State | None
    ) -> tuple[float, State | None]:
        if evaluated:
            _evaluate(learner, subject, state)
        found = learner.accumulate_gradient(
            [world().pairs[row] for row in rows],
            lambda within: world().given([rows[i] for i in within], step, subject.reads),
            state,
        )
        return float(found.losses.mean()), found.state

    state, history = fit(
        model, STEPS, objective, Optimisation(0.01, schedule="constant", warmup=0.0),
        scratch=scratch, checkpoint_steps=1, report=_stopping(stop_after), state=subject.initial,
    )  # fmt: skip
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    return Trained(weights, state or {}, torch.tensor(history.losses, dtype=torch.float64))


def _stopping(after: int | None) -> Callable[[int, int, str], None]:
    def report(done: int, of: int, unit: str) -> None:
        if done == after:
            raise _Interruption

    return report


def _evaluate(learner: Learner, subject: Subject, state: State | None) -> None:
    """As a run does it: the state that comes back is thrown away."""
    with torch.no_grad():
        seen = learner.see([world().pairs[row] for row in HELD_OUT])
        given = world().given(HELD_OUT, 0, subject.reads)
        evaluate(subject.method, subject.settings, seen, given, state)


def _learner(subject: Subject, model: Any, micro_pairs: int) -> Learner:
    reference = world().reference if "divergence" in subject.reads else None
    return Learner(padded, model, subject.method, subject.settings, micro_pairs, reference)


@cache
def world() -> World:
    """Model, reference, pairs and caches, the same for every method."""
    with torch.random.fork_rng(devices=[]):
        policy = _model(seed=0)
        reference = copy.deepcopy(policy).requires_grad_(False)
        for parameter in reference.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    pairs = _pairs()
    with torch.no_grad():
        seen = pair_columns(padded, reference, pairs, Also(("entropy",)))
    g = torch.Generator().manual_seed(2)
    numbers = 1.5 * torch.randn(5, PAIRS, generator=g)
    columns = {
        "reference": seen["logprobs"],
        "entropy": seen["entropy"],
        "rewards": (numbers[0], numbers[1]),
        "margin": numbers[0] - numbers[1],
        "mismatched": (numbers[3].abs() / 3, numbers[4].abs() / 3),
    }
    return World(policy, reference, pairs, columns)


def _model(seed: int) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=16, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=16,
        initializer_range=0.3, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    return model.eval()


def _pairs() -> list[TokenPair]:
    g = torch.Generator().manual_seed(1)

    def ids(most: int) -> tuple[int, ...]:
        length = int(torch.randint(1, most + 1, (1,), generator=g))
        return tuple(torch.randint(3, VOCABULARY, (length,), generator=g).tolist())

    return [TokenPair(f"pair {row}", ids(4), ids(7), ids(7)) for row in range(PAIRS)]


def _rows(column: Any, rows: Sequence[int]) -> Any:
    """Some rows, as wide as their longest answer, as the engine gives them."""
    index = torch.tensor(list(rows))
    if isinstance(column, PairTokens):
        return PairTokens(_side(column.chosen, index), _side(column.rejected, index))
    if isinstance(column, tuple):
        return tuple(part[index] for part in column)
    return column[index]


def _side(side: LogProbs, index: Tensor) -> LogProbs:
    mask = side.mask[index]
    width = int(mask.sum(-1).max())
    return LogProbs(side.values[index, :width], mask[:, :width])
