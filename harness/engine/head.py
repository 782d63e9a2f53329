"""The output head applied to response positions only, in chunks, so that logits are never held."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from harness.engine.linear_head import KEPT_BYTES, Tiling, linear_logprobs

TILE_LOGITS = 2**22
"""fp32 logits that are held at the same time: 16 MiB."""


@dataclass(frozen=True)
class Head:
    """What stands between the last hidden state and the logits of a causal model.

    Attributes:
        project: the output embedding, bias included.
        tile: fp32 logits that are held at the same time.
        compiled: whether sums over the vocabulary go through torch.compile.
        scale: logits are multiplied by it (Cohere's `logit_scale`, the inverse of Granite's).
        soft_cap: logits are squeezed into (-soft_cap, soft_cap) by tanh (Gemma 2), or None.
    """

    project: Callable[[Tensor], Tensor]
    vocabulary: int
    scale: float = 1.0
    soft_cap: float | None = None
    tile: int = TILE_LOGITS
    compiled: bool = False

    @classmethod
    def of(cls, model: Any, tile: int = TILE_LOGITS, *, compiled: bool = False) -> Head:
        """Read the head of a causal model; what this misses shows in the check with the oracle."""
        linear: nn.Linear = model.get_output_embeddings()
        config = model.config.get_text_config()
        scale = getattr(config, "logit_scale", None) or 1.0
        scale /= getattr(config, "logits_scaling", None) or 1.0
        cap = getattr(config, "final_logit_softcapping", None)
        return cls(linear, int(linear.weight.shape[0]), float(scale), cap, tile, compiled)

    def columns(
        self,
        hidden: Tensor,
        targets: Tensor,
        also: Sequence[str] = (),
        reference: tuple[Head, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """Numbers of every token [tokens], fp32: `logprobs` of the targets in nats, and `also`.

        Args:
            hidden: [tokens, width], the states that predict the targets.
            targets: [tokens], ids.
            also: any of `confidence`, `entropy`, `divergence`; see `contracts.method.READS`.
            reference: head and states of the reference policy, for `divergence`.
        """
        if type(self.project) is nn.Linear and self.soft_cap is None and reference is None:
            rows = self._linear(self.project, hidden, targets, also)
        else:
            rows = self._any(hidden, targets, also, reference)
        return dict(zip(("logprobs", *also), rows, strict=True))

    def _linear(
        self, head: nn.Linear, hidden: Tensor, targets: Tensor, also: Sequence[str]
    ) -> Sequence[Tensor]:
        where = hidden.device.type
        narrow = torch.is_autocast_enabled(where)
        dtype = torch.get_autocast_dtype(where) if narrow else head.weight.dtype
        tiling = Tiling(
            max(1, self.tile // self.vocabulary),
            max(1, KEPT_BYTES // (self.vocabulary * dtype.itemsize)), dtype,
            tuple(_OF_LOGPROBS[name] for name in also), self.compiled,
        )  # fmt: skip
        bias: Tensor | None = head.bias
        if self.scale != 1.0:
            hidden, bias = hidden * self.scale, None if bias is None else bias * self.scale
        return linear_logprobs(hidden, targets, head.weight, bias, tiling)

    def _any(
        self,
        hidden: Tensor,
        targets: Tensor,
        also: Sequence[str],
        reference: tuple[Head, Tensor] | None,
    ) -> Sequence[Tensor]:
        states = [hidden] if reference is None else [hidden, reference[1]]
        size = max(1, self.tile // self.vocabulary)

        def chunk(targets: Tensor, *states: Tensor) -> Tensor:
            against = reference[0].logits(states[1]) if reference else None
            return _numbers(self.logits(states[0]), targets, also, against)

        parts = list(zip(*(torch.split(x, size) for x in (targets, *states)), strict=True))
        if len(parts) == 1:
            rows = chunk(*parts[0])
        else:
            rows = torch.cat([checkpoint(chunk, *part, use_reentrant=False) for part in parts], 1)
        # Rows of one stack share a graph; what carries no gradient must not lead into it.
        named = zip(("logprobs", *also), rows, strict=True)
        return [row.detach() if name in _OF_LOGPROBS else row for name, row in named]

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits in fp32, [tokens, vocabulary]."""
        # The sum over the vocabulary is in fp32: in bf16 it is off by tenths of a nat per answer.
        logits = self.project(hidden).float() * self.scale
        if self.soft_cap is not None:
            logits = torch.tanh(logits / self.soft_cap) * self.soft_cap
        return logits


def _numbers(
    logits: Tensor, targets: Tensor, also: Sequence[str], reference: Tensor | None
) -> Tensor:
    """One row per number, [1 + also, tokens]."""
    logp = logits.log_softmax(-1)
    rows = [logp.gather(-1, targets[:, None]).squeeze(-1)]
    for name in also:
        if name == "divergence":
            assert reference is not None
            log_reference = reference.detach().log_softmax(-1)
            rows.append((log_reference.exp() * (log_reference - logp)).sum(-1))
        else:
            rows.append(_OF_LOGPROBS[name](logp.detach()))
    return torch.stack(rows)


def _confidence(logp: Tensor) -> Tensor:
    return (2 * logp).logsumexp(-1)


def _entropy(logp: Tensor) -> Tensor:
    # p log p is 0 where p is 0, and log p is minus infinity there under a bounded dtype.
    nats: Tensor = torch.special.entr(logp.exp()).sum(-1)
    return nats / math.log(logp.shape[-1])


_OF_LOGPROBS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "confidence": _confidence,
    "entropy": _entropy,
}
