"""How the pairs of a step are cut: each process has its share, each share its micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from harness.budget import Budget
from harness.contracts.logprobs import LogProbs, PairTokens
from harness.data.token_store import token_counts
from harness.data.tokens import TokenPair
from harness.train.device import device
from harness.train.evaluate import Seen
from harness.train.team import ALONE, Team


def tokens(pair: TokenPair) -> int:
    """Tokens of a pair in memory: its prompt once, and both answers."""
    return len(pair.prompt) + len(pair.chosen) + len(pair.rejected)


def micro_batches(
    pairs: Sequence[TokenPair], most_pairs: int, most_tokens: int = Budget.micro_tokens
) -> list[range]:
    """Positions of consecutive pairs that are in memory at a time; a pair that is longer is alone.

    Args:
        pairs: of one step, in their order.
        most_pairs: in one micro-batch.
        most_tokens: in one micro-batch; no pair is ever cut.
    """
    found, start, held = [], 0, 0
    for i, pair in enumerate(pairs):
        if i > start and (i - start == most_pairs or held + tokens(pair) > most_tokens):
            found.append(range(start, i))
            start, held = i, 0
        held += tokens(pair)
    return [*found, range(start, len(pairs))] if pairs else []


def alone(
    pairs: Sequence[TokenPair], steps: Sequence[Sequence[int]], most_tokens: int
) -> str | None:
    """A sentence on pairs of the steps that no micro-batch has room for; None: there are none."""
    long = np.sum(token_counts(pairs), axis=0) > most_tokens
    count = int(long[sorted({row for step in steps for row in step})].sum())
    if not count:
        return None
    what = "1 pair is" if count == 1 else f"{count} pairs are"
    return f"{what} longer than budget.micro_tokens = {most_tokens} and went alone"


@dataclass(frozen=True)
class Cut:
    """Who computes what of a step, and how much at a time."""

    micro_pairs: int
    micro_tokens: int = Budget.micro_tokens
    team: Team = ALONE

    def batches(self, pairs: Sequence[TokenPair]) -> list[range]:
        """Positions within the step of this process's micro-batches."""
        share = self.team.share(len(pairs))
        own = micro_batches(pairs[share.start : share.stop], self.micro_pairs, self.micro_tokens)
        return [range(share.start + b.start, share.start + b.stop) for b in own]

    def see(
        self,
        see: Callable[[Sequence[TokenPair]], Seen],
        pairs: Sequence[TokenPair],
        names: Sequence[str] = ("policy",),
    ) -> dict[str, PairTokens]:
        """What is seen of all pairs, in all processes, by micro-batches.

        Every process of the team must ask for it, with the same pairs.

        Args:
            see: of the pairs of one micro-batch, by names.
            pairs: of all processes.
            names: what `see` gives.
        """
        own = join([see([pairs[i] for i in batch]) for batch in self.batches(pairs)])
        return exchange(own, pairs, names, self.team)


def exchange(
    own: Seen, pairs: Sequence[TokenPair], names: Sequence[str], team: Team
) -> dict[str, PairTokens]:
    """What all processes saw, in the order of the pairs, from what each saw of its share.

    A process alone keeps what it saw, with its graph; several exchange numbers.
    """
    if team.size == 1:
        return dict(own)
    where = device()
    masks = [_mask([len(p.chosen) for p in pairs], where),
             _mask([len(p.rejected) for p in pairs], where)]  # fmt: skip
    width = max(mask.shape[1] for mask in masks)
    rows = len(team.share(len(pairs)))
    values = torch.zeros(rows, len(names), 2, width, device=where)
    for n, name in enumerate(names if own else ()):
        for s, side in enumerate((own[name].chosen, own[name].rejected)):
            values[:, n, s, : side.values.shape[1]] = side.values.detach().where(side.mask, 0.0)
    found = team.whole(values, len(pairs))
    return {
        name: PairTokens(*(
            LogProbs(found[:, n, s, : mask.shape[1]].contiguous(), mask)
            for s, mask in enumerate(masks)
        ))
        for n, name in enumerate(names)
    }  # fmt: skip


def _mask(lengths: Sequence[int], where: torch.device) -> Tensor:
    return torch.arange(max(lengths), device=where) < torch.tensor(lengths, device=where)[:, None]


def join(parts: Sequence[Seen]) -> dict[str, PairTokens]:
    """What was seen of several micro-batches as of one batch, padded to a common width."""
    names: Mapping[str, object] = parts[0] if parts else {}
    return {
        name: PairTokens(
            _join([part[name].chosen for part in parts]),
            _join([part[name].rejected for part in parts]),
        )
        for name in names
    }


def _join(parts: Sequence[LogProbs]) -> LogProbs:
    width = max(part.values.shape[1] for part in parts)
    widths = [(0, width - part.values.shape[1]) for part in parts]
    return LogProbs(
        torch.cat([pad(part.values, w) for part, w in zip(parts, widths, strict=True)]),
        torch.cat([pad(part.mask, w) for part, w in zip(parts, widths, strict=True)]),
    )
