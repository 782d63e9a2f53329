"""Log-probs of a fixed policy over fixed answers: the reference pass, and scores of completions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.contracts.logprobs import LogProbs, PairLogProbs
from harness.data.ragged import Ragged, load_ragged, save_ragged
from harness.data.token_store import load_pairs
from harness.store.stage import Work
from harness.train import device
from harness.train.batches import by_length
from harness.train.engine import ENGINES, Engine, Sequences
from harness.train.policy import load_policy, without_dropout


def score_reference(work: Work) -> Mapping[str, Any]:
    """Stage: per-token log-probs of the reference policy over every pair, fp32, in nats."""
    s = work.settings
    device.exactly()
    where = device.device()
    model, _ = load_policy(work.inputs["policy"])
    without_dropout(model.to(where))
    tokens = 0
    with device.precision(where, s["precision"]):
        for split in ("train", "validation"):
            pairs = load_pairs(work.inputs["tokens"], split)
            columns = {
                side: score(
                    ENGINES[s["engine"]], model,
                    [(pair.prompt, getattr(pair, side)) for pair in pairs], work.report,
                )
                for side in ("chosen", "rejected")
            }  # fmt: skip
            save_ragged(work.out / f"{split}.safetensors", **columns)
            tokens += sum(len(row) for rows in columns.values() for row in rows)
    return {"answer_tokens": tokens, **device.facts(where)}


def score(
    engine: Engine,
    model: Any,
    sequences: Sequences,
    report: Callable[[int, int, str], None] = lambda done, total, unit: None,
) -> Ragged:
    """Log-probs of each response, [its tokens], in the order of the sequences."""
    found: dict[int, NDArray[np.float32]] = {}
    with torch.no_grad():
        for rows in by_length([len(prompt) + len(answer) for prompt, answer in sequences]):
            batch = engine(model, [sequences[row] for row in rows])
            for row, values, mask in zip(rows, batch.values, batch.mask, strict=True):
                found[row] = values[mask].float().cpu().numpy()
            report(len(found), len(sequences), "sequences")
    return [found[row] for row in range(len(sequences))]


class ReferenceCache:
    """Reference log-probs of one split, read once and handed out by pair."""

    def __init__(self, folder: Path, split: str) -> None:
        columns = load_ragged(folder / f"{split}.safetensors")
        self._chosen, self._rejected = columns["chosen"], columns["rejected"]

    def __len__(self) -> int:
        return len(self._chosen)

    def rows(self, rows: Sequence[int], where: torch.device) -> PairLogProbs:
        """Log-probs of these pairs, padded to the longest of them."""
        return PairLogProbs(
            _padded([self._chosen[row] for row in rows], where),
            _padded([self._rejected[row] for row in rows], where),
        )


def _padded(rows: Ragged, where: torch.device) -> LogProbs:
    width = max(len(row) for row in rows)
    values = np.zeros((len(rows), width), dtype=np.float32)
    mask = np.zeros((len(rows), width), dtype=bool)
    for i, row in enumerate(rows):
        values[i, : len(row)], mask[i, : len(row)] = row, True
    return LogProbs(torch.from_numpy(values).to(where), torch.from_numpy(mask).to(where))
