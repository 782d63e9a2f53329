"""What a writer of completions is asked that is not this process, and what it answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from harness.data.tokens import Ids
from harness.train.policy import without_dropout
from harness.train.resident import Base

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Asked:
    """One completion that is wanted; temperature 0 is greedy."""

    prompt_id: str
    sample: int
    temperature: float
    ids: Ids


class Told(NamedTuple):
    """Ids of each answer, up to and with the id that ended it; and facts for the manifest."""

    answers: list[Ids]
    facts: Mapping[str, Any]


class Writer(Protocol):
    """Writes completions that this process does not; of at most `most` tokens."""

    def __call__(
        self, asked: Sequence[Asked], most: int, ends: Collection[int], report: Progress
    ) -> Told:
        """An answer to each that is asked, in their order."""


@dataclass(frozen=True)
class Policies:
    """What the completions are to be of.

    Attributes:
        model: the policy in this process.
        base: what it was trained from.
        folder: of the base's stage.
        trained: of the policy's own, where it is not the base: a whole model, or an adapter.
    """

    model: Any
    base: Base
    folder: Path
    trained: Path | None

    @property
    def adapter(self) -> Path | None:
        """The folder of its adapter, where it is the base with one."""
        if self.trained is None or not (self.trained / "adapter_config.json").exists():
            return None
        return self.trained

    def unadapted(self) -> Any:
        """The base where the policy is an adapter on it; else None."""
        return without_dropout(self.base.shared()) if self.adapter else None


def draw_seed(seed: int, prompt_id: str, sample: int) -> int:
    """The seed of a completion, 31 bits: a function of seed, prompt and sample, nothing else.

    Numbers drawn with it are not those of `draws`: another backend is another stream.
    """
    name = f"{seed} {sample} {prompt_id}"
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=4).digest(), "little") >> 1
