"""Models, pairs and runs that the engines are compared on, and what is compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.contracts.logprobs import LogProbs
from harness.contracts.method import Method
from harness.data.tokens import TokenPair
from harness.engine.engines import ENGINES, Batched, Engine
from harness.engine.trunks import dense_states
from harness.registry import load_method
from harness.train.evaluate import Seen
from harness.train.live_reference import Follower
from harness.train.loop import Optimisation, fit
from harness.train.run import Run

from .models import make_run, some_pairs, tiny

FAST: Mapping[str, Engine] = {
    **{name: engine for name, engine in ENGINES.items() if name != "oracle"},
    "dense": Batched(dense_states),
}
"""Every way to log-probs that is not the oracle."""

MODELS: Mapping[str, Callable[[], Any]] = {
    "llama": partial(tiny, "llama, tied"),
    "llama, untied": partial(tiny, "llama"),
    "qwen2": partial(tiny, "qwen2"),
    "qwen3": partial(tiny, "qwen3, norms of queries and keys"),
    "gpt2": partial(tiny, "gpt2, learned positions"),
    "gemma2": partial(tiny, "gemma2, soft caps", sliding_window=64),
    "bitnet": partial(tiny, "bitnet, norms within"),
    "cohere": partial(tiny, "cohere, logit_scale"),
    "granite": partial(tiny, "granite, logits_scaling"),
    "phi": partial(tiny, "phi, head with a bias"),
}
"""Models that every trunk can take: Gemma's window is as wide as its context."""

TOLERANCE = 1e-5
STEPS, PER_STEP, MICRO = 5, 4, 3
# Epsilon is as large as a common gradient, see `test_every_method_...`.
OPTIMISATION = Optimisation(learning_rate=2e-3, epsilon=2e-3, warmup=0.0, schedule="constant")
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "tr_dpo": {"tau": 2},  # or it never moves here
    "dpop": {"lambda_": 5.0},  # by default it is fifty times as steep as what it is made of
}


def every_shape() -> list[TokenPair]:
    """Pairs with all that a layout may trip over."""
    long, twice, other, last = some_pairs(4, seed=5)
    return [
        long,
        TokenPair("one token before", (9,), other.chosen, other.rejected),
        TokenPair("one token after", other.prompt, (7,), (8,)),
        twice,
        TokenPair("same prompt, same chosen", twice.prompt, twice.chosen, last.rejected),
        TokenPair("one answer twice", last.prompt, last.chosen, last.chosen),
        TokenPair("an answer that begins another", long.prompt, long.chosen[:2], long.chosen),
        last,
    ]


def near(model: Any, share: float = 0.05) -> Any:
    """A copy whose weights are off by this share: a reference that the policy has left."""
    other = deepcopy(model)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            noise = torch.randn(parameter.shape, generator=draw)
            parameter.add_(noise, alpha=share * float(parameter.abs().mean()))
    return other


def run_of(
    name: str, engine: Engine, model: Any, reference: Any, inputs: Mapping[str, Path], **more: Any
) -> Run:
    """A run of a method on `every_shape`, with a reference of its own where it keeps one."""
    more = {"micro": MICRO, "settings": SETTINGS.get(name), **more}
    return make_run(
        load_method(name), model, every_shape(), inputs, engine=engine,
        reference=deepcopy(reference), **more,
    )  # fmt: skip


@dataclass(frozen=True)
class Found:
    """What one engine makes of a run: numbers before a step, its gradient, and after five steps."""

    seen: Seen
    losses: Tensor
    gradients: Mapping[str, Tensor]
    before: Mapping[str, Tensor]
    after: Mapping[str, Tensor]


def find(run: Run, scratch: Path, optimisation: Optimisation = OPTIMISATION) -> Found:
    """All of it; the model of the run is trained by this."""
    rows = range(len(run.pairs))
    with torch.no_grad():
        seen = run.see(rows)
        losses = run.losses(rows, seen, run.start())
    slopes = gradients(run, rows)
    before = trained(run.learner.model)
    steps = [[(step * PER_STEP + 3 * i) % len(rows) for i in range(PER_STEP)] for step in range(5)]
    fit(
        run.learner.model, steps, run.objective(), optimisation, scratch=scratch,
        checkpoint_steps=100, report=lambda *_: None, state=run.start(), companion=_companion(run),
    )  # fmt: skip
    return Found(seen, losses, slopes, before, trained(run.learner.model))


def gradients(run: Run, rows: Sequence[int]) -> dict[str, Tensor]:
    """Of one step over these rows, by parameter; none is left behind."""
    run.objective()(0, rows, run.start())
    model = run.learner.model
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    return found


def trained(model: Any) -> dict[str, Tensor]:
    """Copies of the parameters that require a gradient."""
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def _companion(run: Run) -> Follower | None:
    method: Method = run.method
    if method.moving_reference is None:
        return None
    mix, every = (run.learner.settings[key] for key in method.moving_reference)
    return Follower(run.learner.model, run.learner.reference, mix, every)


def apart(one: LogProbs, other: LogProbs) -> float:
    """Largest difference per token, in nats; relative to the second where that is above a nat."""
    assert torch.equal(one.mask, other.mask)
    gap = (one.values - other.values).detach().abs() / other.values.detach().abs().clamp_min(1.0)
    return float(gap.masked_fill(~one.mask, 0.0).max())


def seen_apart(one: Seen, other: Seen) -> float:
    """Largest difference per token of all that is seen of the model."""
    assert one.keys() == other.keys()
    sides = [(one[name], other[name]) for name in one]
    return max(max(apart(a.chosen, b.chosen), apart(a.rejected, b.rejected)) for a, b in sides)


def largest(tensors: Mapping[str, Tensor]) -> float:
    """Of all numbers."""
    return max(float(tensor.abs().max()) for tensor in tensors.values())


def furthest(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Largest difference of any parameter."""
    assert one.keys() == other.keys()
    return largest({name: one[name] - other[name] for name in one})


def with_model(run: Run, **changed: Any) -> Run:
    """The run with parts of its learner replaced."""
    return replace(run, learner=replace(run.learner, **changed))
