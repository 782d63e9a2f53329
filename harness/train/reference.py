"""Log-probs of a fixed policy over fixed answers: the reference pass, and scores of completions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.contracts.logprobs import LogProbs, PairLogProbs, PairTokens
from harness.data.ragged import Ragged, load_ragged, save_ragged
from harness.data.token_store import load_pairs
from harness.data.tokens import TokenPair
from harness.store.stage import Work
from harness.train import device
from harness.train.batches import by_length
from harness.train.engine import ENGINES, NOTHING, Also, Engine, Sequences
from harness.train.policy import load_policy, without_dropout


def score_reference(work: Work) -> Mapping[str, Any]:
    """Stage: per-token log-probs of the reference policy over every pair, fp32, in nats.

    With `entropy` the entropy of each of its next-token distributions is written beside them.
    """
    also = Also(("entropy",)) if work.settings["entropy"] else NOTHING
    return score_splits(work, lambda pairs: pairs, also)


def score_splits(
    work: Work, of: Callable[[list[TokenPair]], list[TokenPair]], also: Also = NOTHING
) -> Mapping[str, Any]:
    """Write what the reference policy gives to pairs made of those of every split."""
    s = work.settings
    device.exactly()
    where = device.device()
    model, _ = load_policy(work.inputs["policy"])
    without_dropout(model.to(where))
    tokens = 0
    with device.precision(where, s["precision"]):
        for split in ("train", "validation"):
            pairs = of(load_pairs(work.inputs["tokens"], split))
            columns: dict[str, Ragged] = {}
            for side in ("chosen", "rejected"):
                answers = [(pair.prompt, getattr(pair, side)) for pair in pairs]
                found = score_columns(ENGINES[s["engine"]], model, answers, also, work.report)
                columns[side] = found.pop("logprobs")
                columns |= {f"{side}.{name}": numbers for name, numbers in found.items()}
                tokens += sum(len(row) for row in columns[side])
            save_ragged(work.out / f"{split}.safetensors", **columns)
    return {"answer_tokens": tokens, **device.facts(where)}


def score(engine: Engine, model: Any, sequences: Sequences) -> Ragged:
    """Log-probs of each response, [its tokens], in the order of the sequences."""
    return score_columns(engine, model, sequences)["logprobs"]


def score_columns(
    engine: Engine,
    model: Any,
    sequences: Sequences,
    also: Also = NOTHING,
    report: Callable[[int, int, str], None] = lambda done, total, unit: None,
) -> dict[str, Ragged]:
    """As `score`, with what else is wanted of each token, by name."""
    names = ("logprobs", *also.names)
    found: dict[str, dict[int, NDArray[np.float32]]] = {name: {} for name in names}
    with torch.no_grad():
        for rows in by_length([len(prompt) + len(answer) for prompt, answer in sequences]):
            for name, batch in engine(model, [sequences[row] for row in rows], also).items():
                for row, values, mask in zip(rows, batch.values, batch.mask, strict=True):
                    found[name][row] = values[mask].float().cpu().numpy()
            report(len(found["logprobs"]), len(sequences), "sequences")
    return {name: [by_row[i] for i in range(len(sequences))] for name, by_row in found.items()}


class ReferenceCache:
    """Reference log-probs of one split, read once and handed out by pair; entropies likewise."""

    def __init__(self, folder: Path, split: str) -> None:
        self._columns = load_ragged(folder / f"{split}.safetensors")

    def __len__(self) -> int:
        return len(self._columns["chosen"])

    def rows(self, rows: Sequence[int], where: torch.device) -> PairLogProbs:
        """Log-probs of these pairs, padded to the longest of them."""
        return self._pair(rows, where, "")

    def entropy(self, rows: Sequence[int], where: torch.device) -> PairTokens:
        """Entropies at the response tokens of these pairs, as shares of log(vocabulary)."""
        return self._pair(rows, where, ".entropy")

    def _pair(self, rows: Sequence[int], where: torch.device, what: str) -> PairTokens:
        sides = (self._columns[f"{side}{what}"] for side in ("chosen", "rejected"))
        return PairTokens(*(_padded([side[row] for row in rows], where) for side in sides))


def _padded(rows: Ragged, where: torch.device) -> LogProbs:
    width = max(len(row) for row in rows)
    values = np.zeros((len(rows), width), dtype=np.float32)
    mask = np.zeros((len(rows), width), dtype=bool)
    for i, row in enumerate(rows):
        values[i, : len(row)], mask[i, : len(row)] = row, True
    return LogProbs(torch.from_numpy(values).to(where), torch.from_numpy(mask).to(where))
