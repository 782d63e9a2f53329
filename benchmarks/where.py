"""Where a training step spends its time, by operation: shares of the processor's time.

    OMP_NUM_THREADS=2 python -m benchmarks.where [--precision fp32] [--profile tldr]

What keeps the engine from the floor; read shares, not seconds.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import heats, workload
from harness.data.token_store import load_pairs
from harness.engine.choice import choose, longest
from harness.engine.engines import pair_logprobs
from harness.train import device
from harness.train.policy import load_policy, without_dropout

SHOWN = 12


def main() -> None:
    """Profile one step after two to warm up, and print the operations that took most."""
    flags = heats.parser(__doc__).parse_args()
    spec = heats.spec_of(flags)
    device.exactly()
    with tempfile.TemporaryDirectory() as place:
        workload.make(spec, Path(place), flags.data, flags.tokenizer)
        model = without_dropout(load_policy(Path(place) / "model")[0])
        pairs = load_pairs(Path(place) / "tokens", "train")
        engine = choose("shared", model, longest(pairs)).engine

        def step(number: int) -> None:
            rows = range(number * spec.per_step, (number + 1) * spec.per_step)
            found = pair_logprobs(engine, model, [pairs[row] for row in rows])
            torch.autograd.backward(found.chosen.total().sum() - found.rejected.total().sum())
            model.zero_grad(set_to_none=True)

        with device.precision(torch.device("cpu"), spec.precision):
            step(0)
            step(1)
            with profile(activities=[ProfilerActivity.CPU]) as seen:
                step(2)
    found = sorted(seen.key_averages(), key=lambda one: -one.self_cpu_time_total)
    whole = sum(one.self_cpu_time_total for one in found)
    print("| operation | share | times |\n|---|---|---|")
    for one in found[:SHOWN]:
        print(f"| {one.key} | {one.self_cpu_time_total / whole:.0%} | {one.count} |")


if __name__ == "__main__":
    heats.tell(main)
