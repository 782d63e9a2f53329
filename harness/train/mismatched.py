"""Answers to other prompts: what losses with an estimate of the whole policy's drift read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from harness.contracts.logprobs import PairLogProbs
from harness.data.tokens import TokenPair
from harness.errors import DataError
from harness.store.stage import Work
from harness.train.engine import Engine, pair_logprobs
from harness.train.reference import ReferenceCache, score_splits


def mismatch(pairs: Sequence[TokenPair]) -> list[TokenPair]:
    """Each prompt with both answers of the nearest pair before it that has another prompt.

    The first pairs take theirs from the end. A function of the data alone: the reference's
    log-probs are computed once, and no order of training changes who is beside whom.

    Raises:
        DataError: all pairs have the same prompt.
    """
    others = []
    for i, pair in enumerate(pairs):
        back = (j for j in range(1, len(pairs)) if pairs[i - j].prompt != pair.prompt)
        distance = next(back, None)
        if distance is None:
            raise DataError("all pairs have one prompt: there is no answer to another prompt")
        other = pairs[i - distance]
        others.append(TokenPair(pair.pair_id, pair.prompt, other.chosen, other.rejected))
    return others


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
        self, engine: Engine, model: Any, rows: Sequence[int], micro_pairs: int
    ) -> tuple[Tensor, Tensor]:
        """Log-ratio of the model to the reference in nats, without a graph: chosen, rejected."""
        found: list[PairLogProbs] = []
        with torch.no_grad():
            for start in range(0, len(rows), micro_pairs):
                some = rows[start : start + micro_pairs]
                found.append(pair_logprobs(engine, model, [self.pairs[row] for row in some]))
        reference = self.reference.rows(rows, model.device)
        chosen = torch.cat([part.chosen.total() for part in found])
        rejected = torch.cat([part.rejected.total() for part in found])
        return chosen - reference.chosen.total(), rejected - reference.rejected.total()
