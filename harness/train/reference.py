"""Log-probs of a fixed policy over fixed answers: the reference pass, and scores of completions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.contracts.logprobs import LogProbs, PairLogProbs, PairTokens
from harness.data.ragged import Ragged, create_ragged, load_ragged
from harness.data.token_store import load_pairs, token_counts
from harness.data.tokens import Ids, TokenPair
from harness.engine.branches import Sequences, fed
from harness.engine.choice import chosen, longest
from harness.engine.engines import NOTHING, Also, Engine, pair_columns
from harness.records import Split
from harness.store.stage import Report, Work
from harness.train import device
from harness.train.batches import by_length
from harness.train.policy import without_dropout
from harness.train.resident import RESIDENCE

SPLITS: tuple[Split, Split] = ("train", "validation")


def score_reference(work: Work) -> Mapping[str, Any]:
    """Stage: per-token log-probs of the reference policy over every pair, fp32, in nats.

    With `entropy` the entropy of each of its next-token distributions is written beside them.
    """
    also = Also(("entropy",)) if work.settings["entropy"] else NOTHING
    return score_splits(work, lambda pairs: pairs, also)


def score_splits(
    work: Work, of: Callable[[Sequence[TokenPair]], Sequence[TokenPair]], also: Also = NOTHING
) -> Mapping[str, Any]:
    """Write what the reference policy gives to pairs made of those of every split."""
    s = work.settings
    device.exactly()
    where = device.device()
    tokens, splits = 0, {split: of(load_pairs(work.inputs["tokens"], split)) for split in SPLITS}
    lent = RESIDENCE.borrowed(work.inputs["policy"], where)
    with lent as base, device.precision(where, s["precision"]), torch.no_grad():
        model = without_dropout(base.shared())
        choice = chosen(work, model, longest(*splits.values()))
        for split, pairs in splits.items():
            tokens += write_columns(
                work.out / f"{split}.safetensors", pairs,
                partial(pair_columns, choice.engine, model, also=also),
                ("logprobs", *also.names), work.report,
            )  # fmt: skip
    return {"answer_tokens": tokens, "engine": choice.sentence, **device.facts(where)}


def write_columns(
    path: Path,
    pairs: Sequence[TokenPair],
    see: Callable[[Sequence[TokenPair]], Mapping[str, PairTokens]],
    names: Sequence[str] = ("logprobs",),
    report: Report = lambda done, total, unit: None,
) -> int:
    """Write what is seen of both answers of every pair, a batch at a time; counts their tokens."""
    counts, done = token_counts(pairs), 0
    sides = {"chosen": counts[1], "rejected": counts[2]}
    columns = create_ragged(
        path,
        **{_column(side, name): (n, np.float32) for side, n in sides.items() for name in names},
    )
    for rows in by_length(counts.sum(0).tolist()):
        seen = see([pairs[row] for row in rows])
        for side, name in product(sides, names):
            for row, values in zip(rows, _rows(getattr(seen[name], side)), strict=True):
                columns[_column(side, name)].put(row, values)
        done += len(rows)
        report(done, len(pairs), "pairs")
    return int(counts[1:].sum())


def _column(side: str, name: str) -> str:
    return side if name == "logprobs" else f"{side}.{name}"


def score(engine: Engine, model: Any, sequences: Sequences) -> list[NDArray[np.float32]]:
    """Log-probs of each response, [its tokens], in the order of the sequences.

    Those that share a prompt are scored together, so that an engine can share it, too.
    """
    by_prompt: dict[Ids, list[int]] = {}
    for row, (prompt, _) in enumerate(sequences):
        by_prompt.setdefault(prompt, []).append(row)
    groups = list(by_prompt.values())
    found: dict[int, NDArray[np.float32]] = {}
    with torch.no_grad():
        for batch in by_length([fed([sequences[row] for row in group]) for group in groups]):
            rows = [row for number in batch for row in groups[number]]
            both = engine(model, [sequences[row] for row in rows], NOTHING)["logprobs"]
            found |= zip(rows, _rows(both), strict=True)
    return [found[row] for row in range(len(sequences))]


def _rows(numbers: LogProbs) -> list[NDArray[np.float32]]:
    pairs = zip(numbers.values, numbers.mask, strict=True)
    return [values[mask].float().cpu().numpy() for values, mask in pairs]


class ReferenceCache:
    """Reference log-probs of one split, read once and handed out by pair; entropies likewise."""

    def __init__(self, folder: Path, split: str) -> None:
        self._columns = load_ragged(folder / f"{split}.safetensors")

    def __len__(self) -> int:
        return len(self._columns["chosen"])

    def rows(self, rows: Sequence[int], where: torch.device) -> PairLogProbs:
        """Log-probs of these pairs, padded to the longest of them."""
        return self._pair(rows, where, "logprobs")

    def entropy(self, rows: Sequence[int], where: torch.device) -> PairTokens:
        """Entropies at the response tokens of these pairs, as shares of log(vocabulary)."""
        return self._pair(rows, where, "entropy")

    def _pair(self, rows: Sequence[int], where: torch.device, what: str) -> PairTokens:
        sides = (self._columns[_column(side, what)] for side in ("chosen", "rejected"))
        return PairTokens(*(_padded([side[row] for row in rows], where) for side in sides))


def _padded(rows: Ragged, where: torch.device) -> LogProbs:
    width = max(len(row) for row in rows)
    values = np.zeros((len(rows), width), dtype=np.float32)
    mask = np.zeros((len(rows), width), dtype=bool)
    for i, row in enumerate(rows):
        values[i, : len(row)], mask[i, : len(row)] = row, True
    return LogProbs(torch.from_numpy(values).to(where), torch.from_numpy(mask).to(where))
