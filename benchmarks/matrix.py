"""A contestant that only multiplies square matrices: what this machine can do at most.

`python -m benchmarks.matrix FOLDER PRECISION`, started by floor.py and gpu.py.
"""

from __future__ import annotations

import sys

import torch

from benchmarks.turns import Turns

PRODUCTS = 8
"""Products of a "step"."""


def flops(size: int) -> int:
    """Of one "step"."""
    return PRODUCTS * 2 * size**3


def main(precision: str) -> None:
    """Multiply on request; the size is the side of the matrices."""
    cuda = torch.cuda.is_available()
    size = 8192 if cuda else 2048
    kind = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    a, b = (torch.randn(size, size).to("cuda" if cuda else "cpu", kind) for _ in range(2))
    turns = Turns(wait=torch.cuda.synchronize) if cuda else Turns()
    turns.ready(flops=flops(size))
    while True:
        for _ in range(PRODUCTS):
            torch.mm(a, b)
        turns.step_done(0.0)


if __name__ == "__main__":
    main(sys.argv[2])
