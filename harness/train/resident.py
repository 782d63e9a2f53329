"""The policy that many stages begin from, loaded once in a process and lent to them in turn.

No two stages ever have the same module, so that nothing that one does to it (adapters, hooks,
decoding defaults, flags, a crash half way) can reach the next, and nothing must be taken off again.
What stays is the weights: `shared` is a module of its own over the resident ones, `own` one with
weights of its own.
"""

from __future__ import annotations

import copy
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from harness.errors import HarnessError
from harness.train.policy import load_policy, with_adapter

_Key: TypeAlias = tuple[str, str, tuple[tuple[str, int, int, int], ...]]


@dataclass(frozen=True, eq=False)
class Base:
    """A policy in memory.

    Attributes:
        tokenizer: for reading; every stage has the same one.
    """

    folder: Path
    _model: Any
    tokenizer: Any

    def shared(self) -> Any:
        """A frozen model over the resident weights: adapt it, never write to what it holds."""
        _ = self._lent  # of the weights as they were before anybody had them
        held = {id(p): nn.Parameter(p.detach(), requires_grad=False) for p in self._parameters()}
        return copy.deepcopy(self._model, held)

    def own(self) -> Any:
        """A model with weights of its own, which may be trained."""
        if self._model.device.type == "cpu":
            # Loading maps the file: as fast as a copy, and pages cost memory once written to.
            return load_policy(self.folder)[0]
        return copy.deepcopy(self._model)

    def trained(self, folder: Path) -> Any:
        """The policy of a finished training stage: a whole model, or its adapter on this base."""
        if (folder / "adapter_config.json").exists():
            return with_adapter(self.shared(), folder)
        return load_policy(folder)[0].to(self._model.device)

    def intact(self) -> bool:
        """Whether the resident weights are what they were, every bit in its place."""
        return "_lent" not in vars(self) or self._lent == self._checks()

    @cached_property
    def _lent(self) -> list[int]:
        return self._checks()

    def _checks(self) -> list[int]:
        # 17 ms for 60 MB. A sum would not do: it is the same after rows have changed places, or
        # an even number of signs. Nor would version counters: what peft writes through `.data`
        # moves none.
        bits = (p.detach().reshape(-1).view(torch.uint8).cpu() for p in self._parameters())
        return [zlib.crc32(some.numpy().data) for some in bits]

    def _parameters(self) -> list[nn.Parameter]:
        return list(self._model.parameters())


class Residence:
    """The policies that this process keeps between two stages, the last ones used.

    A process does one stage at a time, and so does a residence: it knows no locks.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[_Key, Base] = {}

    def __len__(self) -> int:
        return len(self._kept)

    @contextmanager
    def borrowed(self, folder: Path, where: torch.device) -> Iterator[Base]:
        """Lend the policy of a finished stage, on this device, until the `with` block ends.

        Whatever ends in an error takes the resident copy with it.

        Raises:
            DataError: the folder holds no policy.
            HarnessError: the borrower wrote to the weights; nobody else will see them.
        """
        key = _key(folder, where)
        base = self._kept.pop(key, None)
        if base is None:
            while len(self._kept) >= self._most:  # before another is loaded beside them
                del self._kept[next(iter(self._kept))]
            model, tokenizer = load_policy(folder)
            base = Base(folder, model.to(where), tokenizer)
        self._kept[key] = base  # the youngest now
        try:
            yield base
        except BaseException:
            self._kept.pop(key, None)
            raise
        if not base.intact():
            self._kept.pop(key, None)
            raise HarnessError(
                f"the weights of {folder} changed while they were on loan, so this result is of no "
                "known policy: whatever trains must take `own()` and not `shared()`"
            )


def _key(folder: Path, where: torch.device) -> _Key:
    """A finished folder never changes; should one be replaced, this does too."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    facts = [(path.name, path.stat()) for path in files]
    signs = tuple((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in facts)
    return str(folder.resolve()), str(where), signs


RESIDENCE = Residence(most=1)
"""This process's, here because a stage is called with folders and nothing else. It keeps one: the
reference policy is all that stages have in common."""
