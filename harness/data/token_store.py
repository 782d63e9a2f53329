"""The tokenised pairs of a data set, made once for all methods, settings and seeds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from harness.data.ragged import load_ragged, save_ragged
from harness.data.tokens import Limits, TokenPair, TokenRules, tokenise
from harness.errors import DataError
from harness.records import Pair, Split, read_jsonl
from harness.store.stage import Work


def tokenise_pairs(work: Work) -> Mapping[str, Any]:
    """Stage: pairs to token ids, by split; what was cut or dropped is counted in the manifest.

    Raises:
        DataError: a split has no pair left to use.
    """
    rules = TokenRules.of(AutoTokenizer.from_pretrained(work.inputs["policy"]))
    limits = Limits(**work.settings["limits"])
    pairs = read_jsonl(work.inputs["pairs"] / "pairs.jsonl", Pair)
    facts: dict[str, Any] = {}
    splits: tuple[Split, Split] = ("train", "validation")
    for split in splits:
        mine = [pair for pair in pairs if pair.split == split]
        kept, facts[split] = tokenise(mine, rules, limits)
        if not kept:
            raise DataError(f"no {split} pair is left of {len(mine)}: {json.dumps(facts[split])}")
        kept = kept[: work.settings["most"][split]]
        facts[split]["used"] = len(kept)
        save_pairs(work.out / f"{split}.safetensors", kept)
    return facts


def save_pairs(path: Path, pairs: Sequence[TokenPair]) -> None:
    """Write ids as ragged arrays and pair ids beside them."""
    save_ragged(
        path,
        prompt=[pair.prompt for pair in pairs],
        chosen=[pair.chosen for pair in pairs],
        rejected=[pair.rejected for pair in pairs],
    )
    path.with_suffix(".json").write_text(json.dumps([pair.pair_id for pair in pairs]))


def load_pairs(folder: Path, split: Split) -> list[TokenPair]:
    """Read the token pairs of a split."""
    columns = load_ragged(folder / f"{split}.safetensors")
    names = json.loads((folder / f"{split}.json").read_text())
    rows = zip(names, columns["prompt"], columns["chosen"], columns["rejected"], strict=True)
    return [
        TokenPair(name, tuple(p.tolist()), tuple(c.tolist()), tuple(r.tolist()))
        for name, p, c, r in rows
    ]
