"""The same race on one GPU: tokens a second, share of the matrix speed, memory of the device.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --model 0.5b --profile tldr

Against the TRL of this environment (`pip install trl peft`), or against our `padded` engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

import torch

from benchmarks import figures, floor, heats, workload
from benchmarks.contest import Result
from harness.data.tokens import TokenPair
from harness.errors import RequestError


def tokens_per_second(
    result: Result, pairs: Sequence[TokenPair], spec: workload.Spec
) -> figures.Spread:
    """Tokens of both sequences of a pair, its prompt counted twice, for all contestants alike."""
    counts = [2 * len(p.prompt) + len(p.chosen) + len(p.rejected) for p in pairs]
    return figures.Spread.of(figures.per_second(result, counts, spec.per_step))


def main() -> None:
    """Race on the GPU and print the tables.

    Raises:
        RequestError: there is no GPU.
    """
    parser = heats.parser(__doc__)
    parser.set_defaults(model="1b", profile="ultrafeedback", engine="tuned", micro_tokens=16384)
    flags = parser.parse_args()
    if not torch.cuda.is_available():
        raise RequestError("no GPU here: benchmarks/train_against_trl.py runs on a CPU")
    spec = heats.spec_of(flags)
    peer = "trl/best" if find_spec("trl") and find_spec("peft") else "ours/padded"
    names = [*heats.engines(flags), peer, f"matrix/{spec.precision}"]
    (*results, matrix), pairs = heats.run(spec, names, flags)
    apart = figures.check_losses(results, spec.precision)
    base = next(result for result in results if result.name == peer)
    print(figures.table(results, spec.per_step, base))
    # The floor is counted with our model's size, which the peer has too.
    ours = [result for result in results if result.name.startswith("ours/")]
    print(f"\n{floor.table(ours, pairs, spec, matrix)}\n")
    for result in results:
        print(f"{result.name}: {tokens_per_second(result, pairs, spec):.0f} tokens/s.")
    print(f"Losses at most {apart:.2g} nats apart.")


if __name__ == "__main__":
    heats.tell(main)
