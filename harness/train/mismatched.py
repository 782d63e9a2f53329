"""Answers to other prompts: what losses with an estimate of the whole policy's drift read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.budget import Budget
from harness.data.token_store import CrossedPairs, prompts
from harness.data.tokens import TokenPair
from harness.engine.engines import Engine, pair_logprobs
from harness.errors import DataError
from harness.store.stage import Work
from harness.train.parts import Cut
from harness.train.reference import ReferenceCache, score_splits
from harness.train.team import ALONE, Team


def mismatch(pairs: Sequence[TokenPair]) -> Sequence[TokenPair]:
    """Each prompt with both answers of the nearest pair before it that has another prompt.

    The first pairs take theirs from the end. A function of the data alone: the reference's
    log-probs are computed once, and no order of training changes who is beside whom.

    Raises:
        DataError: all pairs have the same prompt.
    """
    before = next(prompts(pairs[-1:]), None)
    other = np.zeros(len(pairs), dtype=bool)
    for i, prompt in enumerate(prompts(pairs)):
        other[i], before = prompt != before, prompt
    if not other.any():
        raise DataError("all pairs have one prompt: there is no answer to another prompt")
    # Whoever is behind a pair with the same prompt takes the answers that that one takes.
    begins = np.where(other, np.arange(len(pairs)), np.flatnonzero(other)[-1] - len(pairs))
    return CrossedPairs(pairs, (np.maximum.accumulate(begins) - 1) % len(pairs))


def score_mismatched(work: Work) -> Mapping[str, Any]:
    """Stage: per-token log-probs of the reference policy over the mismatched pairs."""
    return score_splits(work, mismatch)


@dataclass(frozen=True)
class Mismatched:
    """The mismatched pairs of a split, and the reference's log-probs of them."""

    pairs: Sequence[TokenPair]
    reference: ReferenceCache

    def __len__(self) -> int:
        return len(self.reference)

    def log_ratios(
        self,
        engine: Engine,
        model: Any,
        rows: Sequence[int],
        micro_pairs: int,
        *,
        micro_tokens: int = Budget.micro_tokens,
        team: Team = ALONE,
    ) -> tuple[Tensor, Tensor]:
        """Log-ratio of the model to the reference in nats, without a graph: chosen, rejected.

        `team` is the processes that ask for the same rows at the same time, and share the work.
        """
        cut = Cut(micro_pairs, micro_tokens, team)
        with torch.no_grad():
            policy = cut.see(
                lambda some: {"policy": pair_logprobs(engine, model, some)},
                [self.pairs[row] for row in rows],
            )["policy"]
        reference = self.reference.rows(rows, model.device)
        chosen = policy.chosen.total() - reference.chosen.total()
        return chosen, policy.rejected.total() - reference.rejected.total()
