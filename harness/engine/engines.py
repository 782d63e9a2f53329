"""Engines: from a model and token ids to per-token log-probs of the responses, and more."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from harness.contracts.logprobs import LogProbs, PairLogProbs, PairTokens
from harness.data.tokens import TokenPair
from harness.engine.branches import Sequences
from harness.engine.head import TILE_LOGITS, Head
from harness.engine.trunks import Trunk, backbone, block_states, padded_states
from harness.errors import GateError


@dataclass(frozen=True)
class Also:
    """What is wanted of every response token beside its log-prob.

    Attributes:
        names: any of `confidence`, `entropy`, `divergence`; see `contracts.method.READS`.
        reference: the model that `divergence` is measured from.
    """

    names: tuple[str, ...] = ()
    reference: Any | None = None


NOTHING = Also()

Columns: TypeAlias = Mapping[str, LogProbs]
"""`logprobs` and what was also wanted, by name; each [sequences, tokens] under one mask."""

Engine: TypeAlias = Callable[[Any, Sequences, Also], Columns]
"""(causal model, sequences, what else) to numbers of the response tokens."""


def oracle(model: Any, sequences: Sequences, also: Also = NOTHING) -> Columns:
    """One sequence at a time, the model's own logits, fp32: slow, plain, and right by reading."""
    found: dict[str, list[Tensor]] = {name: [] for name in ("logprobs", *also.names)}
    for prompt, response in sequences:
        ids = torch.tensor([*prompt, *response], device=model.device)
        logp = _log_softmax(model, ids)
        p = logp.exp()
        rows = {"logprobs": logp.gather(-1, ids[1:, None]).squeeze(-1)}
        if "confidence" in also.names:
            rows["confidence"] = (p**2).sum(-1).log().detach()
        if "entropy" in also.names:
            rows["entropy"] = -(p * logp).sum(-1).detach() / math.log(logp.shape[-1])
        if "divergence" in also.names:
            with torch.no_grad():
                log_reference = _log_softmax(also.reference, ids)
            rows["divergence"] = (log_reference.exp() * (log_reference - logp)).sum(-1)
        for name, row in rows.items():
            found[name].append(row[len(prompt) - 1 :])
    return {name: _pad(rows) for name, rows in found.items()}


def _log_softmax(model: Any, ids: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=ids[None]).logits[0, :-1]
    return logits.float().log_softmax(-1)


@dataclass(frozen=True)
class Batched:
    """An engine: all sequences at once through a trunk; the head sees response positions only.

    Attributes:
        trunk: the body's states of the sequences, in their order.
        tile: fp32 logits that are held at the same time.
        compiled: whether the head's sums over the vocabulary go through torch.compile.
    """

    trunk: Trunk
    tile: int = TILE_LOGITS
    compiled: bool = False

    def __call__(self, model: Any, sequences: Sequences, also: Also = NOTHING) -> Columns:
        """Log-probs of every response and what was also wanted, padded to the longest."""
        lengths = [len(response) for _, response in sequences]
        targets = torch.tensor([token for _, response in sequences for token in response])
        reference = None
        if "divergence" in also.names:
            with torch.no_grad():
                states = self.trunk(backbone(also.reference), sequences)
            reference = Head.of(also.reference, self.tile), states
        states = self.trunk(backbone(model), sequences)
        head = Head.of(model, self.tile, compiled=self.compiled)
        found = head.columns(states, targets.to(model.device), also.names, reference)
        return {name: _pad(torch.split(numbers, lengths)) for name, numbers in found.items()}


padded = Batched(padded_states)
shared = Batched(block_states)

ENGINES: Mapping[str, Engine] = {"oracle": oracle, "padded": padded, "shared": shared}
"""The engines by the names that a request has for them, for tests and benchmarks: a stage takes
the one of its `choice.Choice`, with the kernel that is right for its model."""


def pair_columns(
    engine: Engine, model: Any, pairs: Sequence[TokenPair], also: Also = NOTHING
) -> dict[str, PairTokens]:
    """`logprobs` and what was also wanted of both answers of every pair, from one engine call."""
    chosen = [(pair.prompt, pair.chosen) for pair in pairs]
    found = engine(model, chosen + [(pair.prompt, pair.rejected) for pair in pairs], also)
    sides = slice(0, len(pairs)), slice(len(pairs), None)
    return {
        name: PairTokens(_side(both, sides[0]), _side(both, sides[1]))
        for name, both in found.items()
    }


def pair_logprobs(engine: Engine, model: Any, pairs: Sequence[TokenPair]) -> PairLogProbs:
    """Log-probs of both answers of every pair, from one call of the engine."""
    return pair_columns(engine, model, pairs)["logprobs"]


def noise_floor(engine: Engine, model: Any, pairs: Sequence[TokenPair], limit: float) -> float:
    """Largest difference per token between an engine and the oracle on sample pairs, in nats.

    The oracle runs in fp32 and uncompiled, whatever the engine runs in.

    Raises:
        GateError: it is above the limit; this model must not be trained with this engine.
    """
    with torch.no_grad():
        fast = pair_logprobs(engine, model, pairs)
        with torch.autocast(model.device.type, enabled=False), as_written(model):
            plain = pair_logprobs(oracle, model, pairs)
    worst = largest_difference(fast, plain)
    if not worst <= limit:
        raise GateError(
            f"the engine's log-probs differ from the oracle's by {worst:.3g} nats per token "
            f"(limit {limit:g}): this model has a head or a mask that the engine does not honour"
        )
    return worst


@contextmanager
def as_written(model: Any) -> Iterator[None]:
    """The modules' own code for as long as this lasts, also where a compiler's stands for it."""
    compiled = {m: m._compiled_call_impl for m in model.modules() if m._compiled_call_impl}
    try:
        for module in compiled:
            module._compiled_call_impl = None
        yield
    finally:
        for module, call in compiled.items():
            module._compiled_call_impl = call


def largest_difference(one: PairLogProbs, other: PairLogProbs) -> float:
    """Largest difference per token in nats, of the same pairs; NaN where there is one."""
    sides = ((one.chosen, other.chosen), (one.rejected, other.rejected))
    apart = [(a.values - b.values).masked_fill(~a.mask, 0.0).abs().max() for a, b in sides]
    # Not Python's max: that loses a NaN that does not come first.
    return float(torch.stack(apart).max())


def _side(both: LogProbs, rows: slice) -> LogProbs:
    """The rows of one side, as wide as their longest answer."""
    width = int(both.mask[rows].sum(-1).max())
    return LogProbs(both.values[rows, :width], both.mask[rows, :width])


def _pad(rows: Sequence[Tensor]) -> LogProbs:
    lengths = torch.tensor([len(row) for row in rows], device=rows[0].device)
    values = pad_sequence(list(rows), batch_first=True)
    return LogProbs(values, torch.arange(values.shape[1], device=values.device) < lengths[:, None])
