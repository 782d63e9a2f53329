"""A contestant whose step is a whole cell: the train stage of one method after another.

`python -m benchmarks.cells FOLDER ENGINE`, started by comparison.py. What cells share is made once,
before the first: the choice of the engine and the reference pass.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.ours import made, settings
from benchmarks.turns import Turns
from benchmarks.workload import Spec
from harness.store.stage import Work
from harness.train.cell import train_cell

METHODS = (
    "dpo", "ipo", "hinge", "exo", "nca", "robust_dpo", "bco", "sppo_hard", "aot", "apo_zero",
    "apo_down", "discopop",
)  # fmt: skip
"""All of them are losses of TRL's DPOTrainer too, and read the reference."""


def main(folder: Path, name: str) -> None:
    """Make what is shared, then a cell on request; without end, seed after seed."""
    spec = Spec(**json.loads((folder / "spec.json").read_text()))
    turns = Turns()
    inputs = {"tokens": folder / "tokens", "policy": folder / "model"}
    for stage in ("engine", "reference"):
        inputs[stage] = made(stage, folder / name, inputs, settings(spec, name))
    turns.ready(device="cpu")
    cell = 0
    while True:
        seed, method = divmod(cell, len(METHODS))
        out = folder / f"cell-{cell}"
        out.mkdir()
        work = Work(_settings(spec, name, METHODS[method], seed), inputs, out, out, lambda *_: None)
        turns.step_done(train_cell(work)["loss"]["last"])
        cell += 1


def _settings(spec: Spec, name: str, method: str, seed: int) -> dict[str, Any]:
    optimisation = {
        "learning_rate": spec.learning_rate, "schedule": "constant", "warmup": 0.0,
        "weight_decay": 0.0, "clip": spec.clip,
    }  # fmt: skip
    return {
        **settings(spec, name), "method": method, "method_settings": {}, "seed": seed,
        "epochs": 1, "optimisation": optimisation, "checkpoint_steps": spec.steps + 1,
        "lora": spec.adapters, "pairs_per_step": spec.per_step, "micro_pairs": spec.per_step,
        "micro_tokens": spec.micro_tokens,
    }  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
