"""Trunks: from a causal model's body and sequences to the states that predict response tokens."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask
from torch.nn.utils.rnn import pad_sequence

from harness.engine.branches import Layout, Sequences, in_rows, lay_out
from harness.engine.kernels import BLOCKS, attending

KERNELS: Mapping[str, str] = {
    "blocks": BLOCKS, "eager": "eager", "sdpa": "sdpa", "flex": "flex_attention"
}  # fmt: skip
"""Attention by the name of the trunk, for those that put one in the place of the model's own."""


class Trunk(Protocol):
    """What gives the hidden states that predict the response tokens, [all of them, width]."""

    def __call__(self, body: Any, sequences: Sequences) -> Tensor:
        """In the order of the sequences, and of the tokens in each."""


class SharingTrunk(Trunk, Protocol):
    """A trunk that computes a prompt once for the answers beside it."""

    def __call__(self, body: Any, sequences: Sequences, widest: int | None = None) -> Tensor:
        """As any trunk; `widest` is the most tokens of a prompt and the answers beside it."""


def padded_states(body: Any, sequences: Sequences) -> Tensor:
    """Every sequence a row of its own, right-padded to the longest."""
    device = body.device
    # The last token predicts nothing that is scored, so it is never fed.
    rows = [torch.tensor([*prompt, *response[:-1]]) for prompt, response in sequences]
    ids = pad_sequence(rows, batch_first=True).to(device)
    attention = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True).to(device)
    positions = torch.arange(ids.shape[1], device=device).expand_as(ids)
    hidden: Tensor = body(
        input_ids=ids, attention_mask=attention, position_ids=positions, use_cache=False
    ).last_hidden_state
    lengths = torch.tensor([len(response) for _, response in sequences])
    row = torch.repeat_interleave(torch.arange(len(rows)), lengths)
    column = torch.cat([torch.arange(len(p) - 1, len(p) - 1 + len(r)) for p, r in sequences])
    return hidden[row.to(device), column.to(device)]


def block_states(body: Any, sequences: Sequences, widest: int | None = None) -> Tensor:
    """Every prompt once, its answers behind it, all in one row without padding."""
    layout = lay_out(sequences, body.device, widest)
    return _in_one_row(body, layout, "blocks", layout=layout)


def dense_states(body: Any, sequences: Sequences, widest: int | None = None) -> Tensor:
    """As `block_states`, in rows with a dense mask, through the model's own attention."""
    layout = lay_out(sequences, body.device, widest)
    rows = in_rows(layout)
    mask = rows.mask
    if body.config.get_text_config()._attn_implementation == "eager":  # adds it to the scores
        lowest = torch.finfo(body.dtype).min
        mask = torch.zeros_like(mask, dtype=body.dtype).masked_fill_(~mask, lowest)
    hidden: Tensor = body(
        input_ids=layout.ids[rows.tokens], position_ids=layout.positions[rows.tokens],
        attention_mask=mask, use_cache=False,
    ).last_hidden_state  # fmt: skip
    return hidden.flatten(0, 1)[rows.where[layout.predicts]]


def flex_states(body: Any, sequences: Sequences, widest: int | None = None) -> Tensor:
    """As `block_states`, through FlexAttention: on GPUs alone has it a backward pass."""
    layout = lay_out(sequences, body.device, widest)
    count = len(layout.ids)

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return layout.sees(query, key)

    mask = create_block_mask(sees, None, None, count, count, device=body.device.type)
    return _in_one_row(body, layout, "flex", attention_mask=mask)


def _in_one_row(body: Any, row: Layout, trunk: str, **mask: Any) -> Tensor:
    with attending(body, KERNELS[trunk]):
        hidden: Tensor = body(
            input_ids=row.ids[None], position_ids=row.positions[None], use_cache=False, **mask
        ).last_hidden_state
    return hidden[0, row.predicts]


def _through(trunk: str) -> SharingTrunk:
    def states(body: Any, sequences: Sequences, widest: int | None = None) -> Tensor:
        with attending(body, KERNELS[trunk]):
            return dense_states(body, sequences, widest)

    return states


SHARING: Mapping[str, SharingTrunk] = {
    "blocks": block_states, "dense": dense_states, "eager": _through("eager"),
    "sdpa": _through("sdpa"), "flex": flex_states,
}  # fmt: skip
"""By name; `dense` goes through the model's own attention, `eager` and `sdpa` through that one."""

TRUNKS: Mapping[str, Trunk] = {"padded": padded_states, **SHARING}
"""All of them, by name."""


def widest(longest: int) -> int:
    """Tokens of a prompt and the answers beside it, at most; two answers always have room.

    Trunks are tried with as many as this: what masks by the place in a row is right until rows are
    wider than something that nobody knows of.
    """
    return 2 * longest - 1


def trunk_for(name: str, longest: int) -> Trunk:
    """A trunk by name, for sequences of so many tokens: its rows are as wide as were tried."""
    if name in SHARING:
        return partial(SHARING[name], widest=widest(longest))
    return TRUNKS[name]


def backbone(model: Any) -> Any:
    """The causal model without its head; adapters that are injected into it stay in effect."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    return causal.base_model
