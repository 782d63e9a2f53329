"""Per-token log-probs of a batch of answers: all that a loss ever sees of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

PerPair: TypeAlias = Tensor
"""One number per pair, shape [pairs]."""


@dataclass(frozen=True)
class LogProbs:
    """Log-probs of the response tokens of one answer per pair, in nats.

    Attributes:
        values: [pairs, tokens]; what stands outside the mask is never read, not even a NaN.
        mask: [pairs, tokens], bool; true at response tokens (EOS counts where it was generated).
    """

    values: Tensor
    mask: Tensor

    @property
    def length(self) -> PerPair:
        """Number of response tokens, [pairs]; from the mask, never from the values."""
        return self.mask.sum(-1).to(self._wide().dtype)

    def total(self) -> PerPair:
        """Summed log-prob of the answer in nats, [pairs]; in fp32 at least."""
        return self._wide().masked_fill(~self.mask, 0.0).sum(-1)

    def mean(self) -> PerPair:
        """Mean log-prob per token in nats, [pairs]."""
        return self.total() / self.length

    def detach(self) -> LogProbs:
        """The same numbers, cut off from the graph."""
        return LogProbs(self.values.detach(), self.mask)

    def _wide(self) -> Tensor:
        narrow = self.values.dtype in (torch.float16, torch.bfloat16)
        return self.values.float() if narrow else self.values


@dataclass(frozen=True)
class PairLogProbs:
    """Log-probs of the chosen and the rejected answers of a batch of pairs."""

    chosen: LogProbs
    rejected: LogProbs

    @classmethod
    def from_totals(
        cls,
        chosen: Tensor,
        rejected: Tensor,
        chosen_lengths: Tensor | None = None,
        rejected_lengths: Tensor | None = None,
    ) -> PairLogProbs:
        """Build from summed log-probs [pairs] and token counts [pairs] (default 1); for tests."""
        return cls(_spread(chosen, chosen_lengths), _spread(rejected, rejected_lengths))

    def detach(self) -> PairLogProbs:
        """The same numbers, cut off from the graph."""
        return PairLogProbs(self.chosen.detach(), self.rejected.detach())


PairTokens: TypeAlias = PairLogProbs
"""Any other number per response token of both answers, under the same mask: `.chosen.total()`."""


def _spread(totals: Tensor, lengths: Tensor | None) -> LogProbs:
    """Spread each total evenly over its tokens, so that total, mean and length come out right."""
    lengths = torch.ones_like(totals) if lengths is None else lengths
    mask = torch.arange(int(lengths.max()), device=totals.device) < lengths.unsqueeze(-1)
    values = (totals / lengths).unsqueeze(-1).expand(mask.shape)
    return LogProbs(values.masked_fill(~mask, 0.0), mask)
