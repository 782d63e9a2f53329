"""Attention over a row of branches: what transformers' models call in place of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from harness.engine.branches import Block, Layout

BLOCKS = "harness_blocks"


def attend_in_blocks(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    softcap: float | None = None,
    layout: Layout | None = None,
    **more: Any,
) -> tuple[Tensor, None]:
    """Attention of [1, heads, tokens, width] as the layout says; [1, tokens, heads, width].

    What a model may ask for beside that is refused here, so that nothing is left out silently.

    Raises:
        NotImplementedError: the model's attention has something that blocks do not have.
    """
    asked = {
        **{name: more.get(name) is not None for name in _MEANS},
        "dropout": bool(dropout), "no layout": layout is None,
        "a mask of its own": attention_mask is not None,
    }  # fmt: skip
    if strange := [name for name, it_is in asked.items() if it_is]:
        raise NotImplementedError(f"attention in blocks does not know {', '.join(strange)}")
    assert layout is not None, "looked at above"
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    # Rotary embeddings are computed in fp32 also where the rest is narrow.
    groups, narrow = query.shape[1] // key.shape[1], value.dtype
    q = (query * scale).to(narrow).reshape(key.shape[1], groups, *query.shape[2:])
    k, v = key[0].to(narrow), value[0]
    with torch.autocast(query.device.type, enabled=False):
        if softcap is None:
            out = _Attention.apply(q, k, v, layout)  # type: ignore[no-untyped-call]
        else:
            out = _differentiable(q, k, v, layout, softcap)
    return out.reshape(1, -1, *out.shape[2:]).transpose(1, 2).contiguous(), None


_MEANS = ("s_aux", "position_bias", "alibi", "head_mask")
"""Arguments of an attention that change its result; a window is looked at before, see `choice`."""

AttentionInterface.register(BLOCKS, attend_in_blocks)


@contextmanager
def attending(body: Any, name: str) -> Iterator[None]:
    """Let the model attend through a kernel, by its name, for as long as this lasts."""
    config = body.config.get_text_config()
    before = config._attn_implementation
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


class _Attention(torch.autograd.Function):
    """softmax(q k) v block by block: [kv heads, heads per kv head, tokens, width], q scaled."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, layout: Layout) -> Tensor:
        out = torch.empty_like(q)
        hidden = _hidden(layout.longest, q)
        kept = []
        for block in layout.blocks:
            a, b = block.own
            p = torch.softmax(_scores(q, _seen(k, block), block, hidden), -1)
            out[:, :, a:b] = torch.bmm(p, _seen(v, block)).view(*q.shape[:2], b - a, -1)
            kept.append(p)
        ctx.layout = layout
        ctx.save_for_backward(q, k, v, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        # The loop may run under autocast, and so does a backward pass within it.
        with torch.autocast(gradients[0].device.type, enabled=False):
            return _Attention.pull(ctx, gradients[0])

    @staticmethod
    def pull(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        q, k, v, *kept = ctx.saved_tensors
        d_q = torch.empty_like(q)
        # A prompt's keys are seen by every branch: their sum must not be rounded on the way.
        d_k, d_v = (torch.zeros_like(x, dtype=torch.float32) for x in (k, v))
        for block, p in zip(ctx.layout.blocks, kept, strict=True):
            a, b = block.own
            seen_q, seen_d = _queries(q, block), _queries(d_out, block)
            d_p = torch.bmm(seen_d, _seen(v, block).transpose(1, 2))
            d_s = torch.ops.aten._softmax_backward_data(d_p, p, -1, p.dtype)
            d_q[:, :, a:b] = torch.bmm(d_s, _seen(k, block)).view(*q.shape[:2], b - a, -1)
            _scatter(d_k, torch.bmm(d_s.transpose(1, 2), seen_q), block)
            _scatter(d_v, torch.bmm(p.transpose(1, 2), seen_d), block)
        return d_q, d_k.to(k.dtype), d_v.to(v.dtype), None


def _differentiable(q: Tensor, k: Tensor, v: Tensor, layout: Layout, softcap: float) -> Tensor:
    """As `_Attention`, with scores squeezed by tanh (Gemma 2); torch finds the gradient."""
    hidden, parts = _hidden(layout.longest, q), []
    for block in layout.blocks:
        scores = torch.bmm(_queries(q, block), _seen(k, block).transpose(1, 2))
        scores = _hide(torch.tanh(scores / softcap) * softcap, block, hidden)
        p = torch.softmax(scores, -1)
        parts.append(torch.bmm(p, _seen(v, block)).view(*q.shape[:2], -1, v.shape[-1]))
    return torch.cat(parts, 2)


def _scores(q: Tensor, seen: Tensor, block: Block, hidden: Tensor) -> Tensor:
    return _hide(torch.bmm(_queries(q, block), seen.transpose(1, 2)), block, hidden)


def _hide(scores: Tensor, block: Block, hidden: Tensor) -> Tensor:
    """Minus infinity where a query would see what comes after it; in place."""
    n = block.own[1] - block.own[0]
    scores.view(-1, n, scores.shape[-1])[:, :, -n:] += hidden[:n, :n]
    return scores


def _hidden(longest: int, like: Tensor) -> Tensor:
    return torch.full((longest, longest), -torch.inf, dtype=like.dtype, device=like.device).triu_(1)


def _queries(q: Tensor, block: Block) -> Tensor:
    """Queries of a block as one batch per key-value head: [kv heads, heads * queries, width]."""
    return q[:, :, block.own[0] : block.own[1]].flatten(1, 2)


def _seen(x: Tensor, block: Block) -> Tensor:
    """Keys or values that a block sees, its own last: [kv heads, seen, width]."""
    (first, last), (a, b) = block.prefix, block.own
    if last == a:  # they follow each other
        return x[:, first:b]
    return torch.cat([x[:, first:last], x[:, a:b]], 1)


def _scatter(into: Tensor, x: Tensor, block: Block) -> None:
    (first, last), (a, b) = block.prefix, block.own
    into[:, first:last] += x[:, : last - first]
    into[:, a:b] += x[:, last - first :]
