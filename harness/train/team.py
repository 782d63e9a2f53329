"""The processes of one training run, as one of them sees them: its share, and what is exchanged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from harness.errors import GateError, HarnessError
from harness.store.failures import is_memory
from harness.train.device import device

BUCKET = 1 << 24
"""Entries of the gradient that travel together: 64 MB in fp32 beside the gradient itself."""


@dataclass(frozen=True)
class Team:
    """One process of several that train one model; every one of them has all of it.

    Whatever is exchanged has the same bits in all processes afterwards, so that all go on alike.
    All of them must ask for the same exchanges in the same order.
    """

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process is the one that writes files and reports."""
        return self.rank == 0

    def share(self, count: int) -> range:
        """Which of so many consecutive things are this process's; as equal as can be."""
        return range(count * self.rank // self.size, count * (self.rank + 1) // self.size)

    def whole(self, own: Tensor, count: int) -> Tensor:
        """The rows of all processes in their order, [count, ...], without a graph.

        Args:
            own: this process's share of them; of one type and width in all processes.
            count: rows of all processes.
        """
        rows = self.share(count)
        # Adding zeros leaves every number as it is; infinities and NaN too.
        found = own.new_zeros((count, *own.shape[1:]))
        found[rows.start : rows.stop] = own.detach()
        if self.size > 1:
            reduce(found)
        return found

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Put the sum of all processes' gradients in the place of each one's own."""
        if self.size == 1:
            return
        trained = [p for p in parameters if p.requires_grad]
        used = torch.tensor([p.grad is not None for p in trained], device=trained[0].device).int()
        reduce(used, dist.ReduceOp.MAX)
        # A parameter without a gradient anywhere keeps none: AdamW leaves it alone, decay included.
        shared = [p for p, anywhere in zip(trained, used.tolist(), strict=True) if anywhere]
        for bucket in _buckets([_gradient(p) for p in shared]):
            flat = torch.cat([gradient.flatten() for gradient in bucket])
            reduce(flat)
            parts = torch.split(flat, [gradient.numel() for gradient in bucket])
            for gradient, part in zip(bucket, parts, strict=True):
                gradient.copy_(part.view_as(gradient))

    def check_alike(self, tensors: Mapping[str, Tensor]) -> None:
        """All processes must hold the same numbers, to the bit.

        Raises:
            GateError: they do not; their steps have not been one training run.
        """
        if self.size == 1 or not tensors:
            return
        wide = [tensor.detach().to(device(), torch.float64) for tensor in tensors.values()]
        own = torch.stack([torch.stack([one.sum(), one.abs().sum()]) for one in wide])
        ends = torch.stack([own, -own])
        reduce(ends, dist.ReduceOp.MAX)
        if not torch.equal(ends[0], -ends[1]):
            apart = (ends[0] + ends[1]).abs().amax(-1).tolist()
            name = next(n for n, gap in zip(tensors, apart, strict=True) if gap != 0)
            raise GateError(
                f"the {self.size} processes of this run ended with different numbers ('{name}' is "
                "the first): they must be of one kind of machine and of one version; or use "
                "--processes 1"
            )


ALONE = Team()


def reduce(tensor: Tensor, how: Any = dist.ReduceOp.SUM) -> None:
    """Put the sum (or another reduction) over all processes in the place of the tensor.

    Raises:
        HarnessError: another process is gone, or was waited for too long.
    """
    with in_touch():
        dist.all_reduce(tensor, how)


@contextmanager
def in_touch() -> Iterator[None]:
    """What fails in here failed between processes, and is said so.

    Raises:
        HarnessError: in place of a library's words.
    """
    try:
        yield
    except RuntimeError as error:
        if is_memory(error):
            raise
        raise HarnessError(
            "a process of this training run was waited for in vain: it is gone, or does not come "
            f"({str(error).strip().splitlines()[0]}); the same command goes on from the last "
            "checkpoint"
        ) from error


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _buckets(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for gradient in gradients:
        if bucket and sum(g.numel() for g in bucket) + gradient.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket
