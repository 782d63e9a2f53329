"""The choice among a method's trials, by validation prompts that no board uses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

from harness.errors import DivergedError
from harness.judge.score import RELIABILITY
from harness.store.stage import Work


def choose(work: Work) -> Mapping[str, Any]:
    """Stage: the trial with the best mean of the board's metric; the earlier one of equals.

    Means are over the prompts that all trials have. Trials that diverged are not among the inputs;
    they and those with an unreliable score cannot win.

    Raises:
        DivergedError: no trial is left.
    """
    s = work.settings
    found = {i: work.inputs[f"trial-{i}"] for i in _numbers(s) if f"trial-{i}" in work.inputs}
    unreliable = [i for i, folder in found.items() if _unreliable(folder)]
    values = {i: _values(f, s["metric"]) for i, f in found.items() if i not in unreliable}
    shared = pd.DataFrame(values).dropna()
    if shared.empty:
        raise DivergedError(
            f"of {len(s['trials'])} trials {len(s['trials']) - len(found)} diverged and "
            f"{len(unreliable)} have a score that cannot be relied on"
        )
    means = {i: float(shared[i].mean()) for i in values}
    sign = -1.0 if s["better"] == "lower" else 1.0
    best = max(means, key=lambda i: (sign * means[i], -i))
    (work.out / "choice.json").write_text(json.dumps(s["trials"][best]))
    return {
        "trial": best, **s["trials"][best], "of": len(s["trials"]),
        "diverged": len(s["trials"]) - len(found), "unreliable": len(unreliable),
        "means": [means.get(i) for i in _numbers(s)],
    }  # fmt: skip


def _numbers(settings: Mapping[str, Any]) -> range:
    return range(len(settings["trials"]))


def _unreliable(folder: Path) -> bool:
    return bool(json.loads((folder / RELIABILITY).read_text()).get("unreliable"))


def _values(folder: Path, metric: str) -> dict[str, float]:
    table = pq.read_table(folder / "scores.parquet").to_pandas()
    mine = table[table["metric"] == metric]
    return dict(zip(mine["prompt_id"], mine["value"], strict=True))
