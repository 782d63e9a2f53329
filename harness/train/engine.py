"""Log-prob engines: from a model and token ids to per-token log-probs of the responses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from harness.contracts.logprobs import LogProbs, PairLogProbs
from harness.data.tokens import Ids, TokenPair
from harness.errors import GateError
from harness.train.head import Head

Sequences: TypeAlias = Sequence[tuple[Ids, Ids]]
"""Prompt ids and response ids of each sequence."""

Engine: TypeAlias = Callable[[Any, Sequences], LogProbs]
"""(causal model, sequences) to the log-probs of the response tokens, [sequences, tokens]."""


def oracle(model: Any, sequences: Sequences) -> LogProbs:
    """One sequence at a time, the model's own logits, fp32: slow, plain, and right by reading."""
    rows = []
    for prompt, response in sequences:
        ids = torch.tensor([*prompt, *response], device=model.device)
        logits = model(input_ids=ids[None]).logits[0, :-1].float()
        logprobs = logits.log_softmax(-1).gather(-1, ids[1:, None]).squeeze(-1)
        rows.append(logprobs[len(prompt) - 1 :])
    return _pad(rows)


def padded(model: Any, sequences: Sequences) -> LogProbs:
    """All sequences in one right-padded batch; the head sees response positions only."""
    device = model.device
    # The last token predicts nothing that is scored, so it is never fed.
    rows = [torch.tensor([*prompt, *response[:-1]]) for prompt, response in sequences]
    ids = pad_sequence(rows, batch_first=True).to(device)
    attention = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(device)
    positions = torch.arange(ids.shape[1], device=device).expand_as(ids)
    hidden = backbone(model)(
        input_ids=ids, attention_mask=attention, position_ids=positions, use_cache=False
    ).last_hidden_state
    lengths = [len(response) for _, response in sequences]
    row = torch.repeat_interleave(torch.arange(len(rows)), torch.tensor(lengths)).to(device)
    column = torch.cat([torch.arange(len(p) - 1, len(p) - 1 + len(r)) for p, r in sequences]).to(
        device
    )
    targets = torch.tensor([token for _, response in sequences for token in response])
    logprobs = Head.of(model).logprobs(hidden[row, column], targets.to(device))
    return _pad(torch.split(logprobs, lengths))


ENGINES: Mapping[str, Engine] = {"oracle": oracle, "padded": padded}


def pair_logprobs(engine: Engine, model: Any, pairs: Sequence[TokenPair]) -> PairLogProbs:
    """Log-probs of both answers of every pair, from one call of the engine."""
    chosen = [(pair.prompt, pair.chosen) for pair in pairs]
    both = engine(model, chosen + [(pair.prompt, pair.rejected) for pair in pairs])
    return PairLogProbs(_side(both, slice(0, len(pairs))), _side(both, slice(len(pairs), None)))


def backbone(model: Any) -> Any:
    """The causal model without its head; adapters that are injected into it stay in effect."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    return causal.base_model


def noise_floor(engine: Engine, model: Any, pairs: Sequence[TokenPair], limit: float) -> float:
    """Largest difference per token between an engine and the oracle on sample pairs, in nats.

    Raises:
        GateError: it is above the limit; this model must not be trained with this engine.
    """
    with torch.no_grad():
        fast = pair_logprobs(engine, model, pairs)
        with torch.autocast(model.device.type, enabled=False):
            plain = pair_logprobs(oracle, model, pairs)
    worst = largest_difference(fast, plain)
    if not worst <= limit:
        raise GateError(
            f"the engine's log-probs differ from the oracle's by {worst:.3g} nats per token "
            f"(limit {limit:g}): this model has a head or a mask that the engine does not honour"
        )
    return worst


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
