"""The choice among a method's trials, by validation prompts that no board uses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow.parquet as pq

from harness.errors import DivergedError
from harness.store.stage import Work


def choose(work: Work) -> Mapping[str, Any]:
    """Stage: the trial with the best mean of the board's metric; the earlier one of equals.

    Trials that diverged are not among the inputs and cannot win.

    Raises:
        DivergedError: every trial did.
    """
    s = work.settings
    means = {}
    for i in range(len(s["trials"])):
        if folder := work.inputs.get(f"trial-{i}"):
            table = pq.read_table(folder / "scores.parquet").to_pandas()
            means[i] = float(table[table["metric"] == s["metric"]]["value"].mean())
    if not means:
        raise DivergedError(f"all {len(s['trials'])} trials diverged")
    sign = -1.0 if s["better"] == "lower" else 1.0
    best = max(means, key=lambda i: (sign * means[i], -i))
    (work.out / "choice.json").write_text(json.dumps(s["trials"][best]))
    return {
        "trial": best, **s["trials"][best], "of": len(s["trials"]),
        "diverged": len(s["trials"]) - len(means),
        "means": [means.get(i) for i in range(len(s["trials"]))],
    }  # fmt: skip
