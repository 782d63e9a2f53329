"""Log-probs under a linear output head, with a gradient that never holds fp32 logits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import linear

Numbers: TypeAlias = Callable[[Tensor], Tensor]
"""From fp32 log-probs of a tile, [tokens, vocabulary], to a number of each token."""

KEPT_BYTES = 2**29
"""Slopes of log-probs that are kept for the backward pass; more are computed again in pieces."""


Softmax: TypeAlias = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Tiling:
    """How the head is gone through.

    Attributes:
        rows: tokens whose logits are in fp32 at the same time.
        kept: tokens whose slopes, [vocabulary] each, are kept for the gradient.
        dtype: of the matrix products; sums over the vocabulary are in fp32 whatever it is.
        also: what else is wanted of every token's distribution.
        compiled: the sums over the vocabulary go through torch.compile.
    """

    rows: int
    kept: int
    dtype: torch.dtype
    also: tuple[Numbers, ...] = ()
    compiled: bool = False

    @property
    def softmax(self) -> Softmax:
        """From logits of a tile and targets to log-probs in fp32 and what `_excess` says."""
        return _compiled_softmax() if self.compiled else _softmax


def linear_logprobs(
    hidden: Tensor, targets: Tensor, weight: Tensor, bias: Tensor | None, tiling: Tiling
) -> tuple[Tensor, ...]:
    """Log-probs of the targets [tokens] in nats, fp32, and other numbers without a gradient.

    Where the head is frozen the gradient with respect to the hidden state, which does not depend
    on the loss but for a factor per token, is formed in the forward pass. Where it is trained the
    slopes with respect to the logits are kept in the dtype of the products, or computed again if
    they are too many.

    Args:
        hidden: [tokens, width].
        targets: [tokens], ids.
        weight: [vocabulary, width].
        bias: [vocabulary] or None.
        tiling: sizes, dtype, and what else is wanted.
    """
    inputs = (hidden, weight) if bias is None else (hidden, weight, bias)
    with torch.autocast(hidden.device.type, enabled=False):
        if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
            found = _LogProbs.apply(hidden, targets, weight, bias, tiling)  # type: ignore[no-untyped-call]
            return tuple(found)
        head = _Head.of(weight, bias, tiling)
        return tuple(head.numbers(hidden.to(tiling.dtype), targets, None))


@dataclass(frozen=True)
class _Head:
    weight: Tensor
    bias: Tensor | None
    tiling: Tiling

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, tiling: Tiling) -> _Head:
        narrow = weight.to(tiling.dtype)
        return cls(narrow, None if bias is None else bias.to(tiling.dtype), tiling)

    def numbers(self, hidden: Tensor, targets: Tensor, kept: Tensor | None) -> Tensor:
        """Log-probs and what else is wanted, [1 + also, tokens]; the excess goes into `kept`."""
        rows = []
        for at in _slices(len(hidden), self.tiling.rows):
            logits = linear(hidden[at], self.weight, self.bias)
            if kept is not None and not self.tiling.also:
                picked, kept[at] = self.tiling.softmax(logits, targets[at])
                rows.append(picked[None])
                continue
            logp = torch.log_softmax(logits, -1, dtype=torch.float32)
            picked = logp.gather(1, targets[at, None]).squeeze(1)
            rows.append(torch.stack([picked, *(number(logp) for number in self.tiling.also)]))
            if kept is not None:
                kept[at] = _excess(logp, targets[at], picked)
        return torch.cat(rows, 1)

    def excess(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Of all these tokens, [tokens, vocabulary], in the dtype of the products."""
        kept = hidden.new_empty(len(hidden), len(self.weight))
        replace(self, tiling=replace(self.tiling, also=())).numbers(hidden, targets, kept)
        return kept

    def pull(self, excess: Tensor) -> Tensor:
        """Gradient of log-probs with respect to their hidden states, [tokens, width], fp32."""
        return (excess @ self.weight).float().neg_()


class _LogProbs(torch.autograd.Function):
    @staticmethod
    def forward(  # noqa: PLR0917 (autograd passes by position)
        ctx: Any, hidden: Tensor, targets: Tensor, weight: Tensor, bias: Tensor | None,
        tiling: Tiling,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        head = _Head.of(weight, bias, tiling)
        narrow = hidden.to(tiling.dtype)
        frozen = not (weight.requires_grad or (bias is not None and bias.requires_grad))
        rows, pulled = [], []
        kept: Tensor | None = None
        for at in _slices(len(narrow), tiling.kept):
            whole = frozen or len(narrow) <= tiling.kept
            kept = narrow.new_empty(len(narrow[at]), len(weight)) if whole else None
            rows.append(head.numbers(narrow[at], targets[at], kept))
            if frozen and kept is not None:
                pulled.append(head.pull(kept).to(hidden.dtype))
        ctx.head, ctx.frozen, ctx.dtypes = head, frozen, (hidden.dtype, weight.dtype)
        ctx.save_for_backward(*(pulled if frozen else (narrow, targets, kept)))
        found = torch.cat(rows, 1).unbind()
        ctx.mark_non_differentiable(*found[1:])
        return found

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # The loop may run under autocast, and so does a backward pass within it.
        with torch.autocast(gradients[0].device.type, enabled=False):
            return _LogProbs.pull(ctx, gradients[0][:, None])

    @staticmethod
    def pull(ctx: Any, c: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.frozen:
            return torch.cat(ctx.saved_tensors) * c, None, None, None, None
        head: _Head = ctx.head
        narrow, targets, kept = ctx.saved_tensors
        d_hidden, d_weight, d_bias = [], None, None
        for at in _slices(len(narrow), head.tiling.kept):
            h = narrow[at]
            excess = head.excess(h, targets[at]) if kept is None else kept
            d_hidden.append(head.pull(excess) * c[at])
            part = (excess.T @ (h.float() * c[at]).to(h.dtype)).float().neg_()
            d_weight = part if d_weight is None else d_weight.add_(part)
            if head.bias is not None:
                part = (excess.T.float() @ c[at]).squeeze(1).neg_()
                d_bias = part if d_bias is None else d_bias.add_(part)
        dtype, of_weight = ctx.dtypes
        assert d_weight is not None, "a step has tokens"
        return torch.cat(d_hidden).to(dtype), None, d_weight.to(of_weight), d_bias, None


def _softmax(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    logp = torch.log_softmax(logits, -1, dtype=torch.float32)
    picked = logp.gather(1, targets[:, None]).squeeze(1)
    return picked, _excess(logp, targets, picked).to(logits.dtype)


def _excess(logp: Tensor, targets: Tensor, picked: Tensor) -> Tensor:
    """Probabilities less 1 at the target, the slope of -log p in the logits; in place of `logp`.

    The 1 is taken off in fp32: 1 - p of a target that the model is sure of is lost in bf16, where
    p is 1 from 0.998 on. In place, because another tile of fp32 is slow to get.
    """
    return logp.exp_().scatter_(1, targets[:, None], torch.expm1(picked)[:, None])


@cache
def _compiled_softmax() -> Softmax:
    return torch.compile(_softmax, dynamic=True)


def _slices(count: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, count, size)]
