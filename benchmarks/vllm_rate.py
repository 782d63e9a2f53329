"""Tokens per second of vLLM and of our own loop, how long vLLM takes to start, and its memory.

    python -m benchmarks.vllm_rate PYTHON [rounds] [fp32|bf16]

PYTHON is an interpreter that has vLLM (`sh tests/vllm_environment.sh` prints one). A Llama of 23
million random parameters (vLLM on a CPU wants heads of 32 or more), prompts of 64 to 256 tokens,
64 tokens each, in turn; medians over the rounds, and the least and most, per second of wall time
and per second that the process computed (for a machine that does other work, too). Several ids end
an answer, so that answers have lengths of all kinds. OMP_NUM_THREADS rules both.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.generation import Prompts, ours
from harness.generate.vllm_engine import Engine
from harness.generate.vllm_setup import Request, Setup

MOST = 64


def model_and_prompts(count: int) -> tuple[Any, Prompts]:
    """The model, and so many prompts."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32_000, hidden_size=384, intermediate_size=1024, num_hidden_layers=6,
        num_attention_heads=6, num_key_value_heads=6, max_position_embeddings=512,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    draw = np.random.default_rng(0)
    lengths = draw.integers(64, 257, count)
    prompts = [tuple(int(i) for i in draw.integers(3, 32_000, n)) for n in lengths]
    return LlamaForCausalLM(config).eval(), prompts


def theirs(engine: Engine, prompts: Prompts, ends: list[int]) -> int:
    """Tokens that vLLM writes."""
    requests = [Request(prompt, 1.0, row) for row, prompt in enumerate(prompts)]
    return sum(len(answer.ids) for answer in engine.write(requests, MOST, ends))


def rates(process: psutil.Process, write: Callable[[], int]) -> tuple[float, float]:
    """Tokens per second of wall time, and of the process's own time."""
    start, used = time.perf_counter(), sum(process.cpu_times()[:2])
    written = write()
    used = sum(process.cpu_times()[:2]) - used
    return written / (time.perf_counter() - start), written / used


def main(python: str, rounds: str = "3", precision: str = "fp32", count: str = "64") -> None:
    """Print the figures."""
    model, prompts = model_and_prompts(int(count))
    ends = list(range(2, 2 + 3 * 32_000 // MOST))
    dtype = {"fp32": "float32", "bf16": "bfloat16"}[precision]
    found: dict[str, list[tuple[float, float]]] = {"vLLM": [], "ours": []}
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        clock = time.perf_counter()
        engine = Engine(Setup(Path(folder), dtype, 320, python=python))
        print(f"vLLM {engine.versions['vllm']} starts in {time.perf_counter() - clock:.1f} s")
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, precision == "bf16"):
            for turn in range(int(rounds) + 1):
                for name, process, write in (
                    ("vLLM", psutil.Process(engine.pid), partial(theirs, engine, prompts, ends)),
                    ("ours", psutil.Process(), partial(ours, model, prompts, MOST, ends)),
                ):
                    figures = rates(process, write)
                    if turn:  # the first one warms up
                        found[name].append(figures)
        memory = psutil.Process(engine.pid).memory_info().rss
        engine.close()
    print(
        f"its process holds {memory / 1e6:.0f} MB; {torch.get_num_threads()} threads, {precision}"
    )
    for kind, what in enumerate(("wall", "CPU")):
        middle = {}
        for name, figures in found.items():
            values = [pair[kind] for pair in figures]
            middle[name] = median(values)
            spread = f"({min(values):.0f} to {max(values):.0f})"
            print(f"{name}  {middle[name]:7.0f} {spread} tokens per second of {what} time")
        print(f"ratio {middle['vLLM'] / middle['ours']:.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
