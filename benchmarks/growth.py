"""Whether memory or the cost of a step grows with the data: cells on stores of several sizes.

    python benchmarks/growth.py 2000 20000 200000

For each number of pairs a store of random ids is written (prompts of 64 to 256 tokens, answers of
32 to 256) and a process of its own opens it as a cell does, bills it, reads some steps' rows from
all over it, and trains a small model for a few. `memory_mb` is how much the process grew by all of
that but training, whose memory is of the batch. Times are CPU time: other work on the machine adds
little to them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from harness.budget import Budget, ModelSize
from harness.data.ragged import create_ragged
from harness.engine.engines import ENGINES
from harness.registry import load_method
from harness.store.peak_memory import peak, restart_peak
from harness.train.ledger import Ledger, payer
from harness.train.run import Run
from harness.train.step import Learner

VOCABULARY, PER_STEP, STEPS, READS = 4096, 8, 12, 240
COLUMNS = ("pairs", "store_mb", "open_s", "order_s", "memory_mb", "data_ms_a_step", "ms_a_step")


def write_store(folder: Path, pairs: int) -> dict[str, Path]:
    """A store of token pairs and one of reference log-probs, written row by row."""
    draw = np.random.default_rng(0)
    bounds = {"prompt": (64, 257), "chosen": (32, 257), "rejected": (32, 257)}
    lengths = {side: draw.integers(*bound, pairs) for side, bound in bounds.items()}
    names = [f"pair {row}".encode() for row in range(pairs)]
    inputs = {name: folder / name for name in ("tokens", "reference")}
    for place in inputs.values():
        place.mkdir()
    tokens = create_ragged(
        inputs["tokens"] / "train.safetensors",
        **{side: (sizes, np.int32) for side, sizes in lengths.items()},
        pair_id=([len(name) for name in names], np.uint8),
    )
    reference = create_ragged(
        inputs["reference"] / "train.safetensors",
        **{side: (lengths[side], np.float32) for side in ("chosen", "rejected")},
    )
    for row, name in enumerate(names):
        tokens["pair_id"].put(row, np.frombuffer(name, np.uint8))
        for side, sizes in lengths.items():
            tokens[side].put(row, draw.integers(3, VOCABULARY, sizes[row], dtype=np.int32))
        for side, column in reference.items():
            column.put(row, -6 - draw.random(lengths[side][row], dtype=np.float32))
    return inputs


def measure(inputs: Mapping[str, Path]) -> dict[str, float]:
    """Seconds and megabytes of a cell on this store, in this process."""
    method = load_method("dpo").narrowed({})
    learner = Learner(ENGINES["padded"], _model(), method, method.resolve({}), PER_STEP)
    restart_peak()
    begun, clock = peak(restarted=True).size or 0, time.process_time()
    run = _open(learner, inputs)
    opened = time.process_time() - clock
    settings = {**asdict(Budget()), "lora": None, "seed": 0, "pairs_per_step": PER_STEP}
    ledger = Ledger.of(run.pairs, ModelSize(10**6, 10**5), settings)
    steps = ledger.steps(payer(method, 0))
    ledger.bill(payer(method, 0), steps)
    ordered = time.process_time() - clock - opened
    read = [_seconds(_read, run, rows) for rows in _spread(steps, READS)]
    grown = (peak(restarted=True).size or 0) - begun
    took = [_seconds(_step, learner, run, rows) for rows in _spread(steps, STEPS)]
    return {
        "open_s": opened, "order_s": ordered, "ms_a_step": 1e3 * median(took),
        "data_ms_a_step": 1e3 * median(read),
        "memory_mb": grown / 1e6,
    }  # fmt: skip


def _model() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, max_position_embeddings=1024,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    return model.eval()


def _open(learner: Learner, inputs: Mapping[str, Path]) -> Run:
    return Run.of(learner, inputs, "train", where=torch.device("cpu"), seed=0)


def _read(run: Run, rows: Any) -> None:
    _ = [run.pairs[row] for row in rows], run.given(rows, 0)


def _step(learner: Learner, run: Run, rows: Any) -> None:
    run.objective()(0, rows, run.start())
    learner.model.zero_grad()


def _spread(steps: list[list[int]], count: int) -> list[list[int]]:
    return [steps[i] for i in np.linspace(0, len(steps) - 1, count).astype(int)]


def _seconds(call: Any, *args: Any) -> float:
    clock = time.process_time()
    call(*args)
    return time.process_time() - clock


def main(*counts: str) -> None:
    """Print a row for each number of pairs."""
    print("".join(f"{name:>16}" for name in COLUMNS))
    for count in counts:
        with tempfile.TemporaryDirectory() as folder:
            inputs = write_store(Path(folder), int(count))
            size = sum(path.stat().st_size for path in Path(folder).rglob("*.safetensors"))
            told = {name: str(path) for name, path in inputs.items()}
            command = [sys.executable, __file__, "--measure", json.dumps(told)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = {"pairs": int(count), "store_mb": size / 1e6, **json.loads(done.stdout)}
        print("".join(f"{row[name]:>16.6g}" for name in COLUMNS), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        places = {name: Path(place) for name, place in json.loads(sys.argv[2]).items()}
        print(json.dumps(measure(places)))
    else:
        main(*sys.argv[1:])
