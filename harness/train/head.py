"""The output head applied to response positions only, in chunks, so that logits are never held."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Logits of one chunk: 2**22 fp32 numbers are 16 MiB, recomputed in the backward pass.
CHUNK_LOGITS = 2**22


@dataclass(frozen=True)
class Head:
    """What stands between the last hidden state and the logits of a causal model.

    Attributes:
        project: the output embedding, bias included.
        scale: logits are multiplied by it (Cohere's `logit_scale`, the inverse of Granite's).
        soft_cap: logits are squeezed into (-soft_cap, soft_cap) by tanh (Gemma 2), or None.
    """

    project: Callable[[Tensor], Tensor]
    vocabulary: int
    scale: float = 1.0
    soft_cap: float | None = None

    @classmethod
    def of(cls, model: Any) -> Head:
        """Read the head of a causal model; what this misses shows in the check with the oracle."""
        linear: nn.Linear = model.get_output_embeddings()
        config = model.config.get_text_config()
        scale = getattr(config, "logit_scale", None) or 1.0
        scale /= getattr(config, "logits_scaling", None) or 1.0
        cap = getattr(config, "final_logit_softcapping", None)
        return cls(linear, int(linear.weight.shape[0]), float(scale), cap)

    def logprobs(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Log-probs of the targets in nats, fp32.

        Args:
            hidden: [tokens, width], the states that predict the targets.
            targets: [tokens], ids.
        """
        size = max(1, CHUNK_LOGITS // self.vocabulary)
        if len(targets) <= size:
            return self._chunk(hidden, targets)
        parts = zip(torch.split(hidden, size), torch.split(targets, size), strict=True)
        return torch.cat([checkpoint(self._chunk, *part, use_reentrant=False) for part in parts])

    def _chunk(self, hidden: Tensor, targets: Tensor) -> Tensor:
        # The sum over the vocabulary is in fp32: in bf16 it is off by tenths of a nat per answer.
        logits = self.project(hidden).float() * self.scale
        if self.soft_cap is not None:
            logits = torch.tanh(logits / self.soft_cap) * self.soft_cap
        return logits.gather(-1, targets[:, None]).squeeze(-1) - logits.logsumexp(-1)
