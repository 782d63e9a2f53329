"""Answers of a server, on disk the moment they come."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.generate.asked import Asked
from harness.generate.end_point import LENGTH, STOP, Choice


@dataclass(frozen=True)
class Arrived:
    """Answers that came, on disk at once: a killed run asks for the others only."""

    path: Path
    found: dict[tuple[str, float], list[Choice]]
    lock: Any = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, path: Path) -> Arrived:
        """What is there already; a line that a kill cut short is not."""
        path.parent.mkdir(parents=True, exist_ok=True)
        found = {}
        for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
            with suppress(ValueError, KeyError, TypeError):
                row = json.loads(line)
                found[row["prompt_id"], row["temperature"]] = [_restored(c) for c in row["choices"]]
        return cls(path, found)

    def get(self, group: Sequence[Asked]) -> list[Choice] | None:
        """The answers to these, if they have come."""
        return self.found.get((group[0].prompt_id, group[0].temperature))

    def keep(self, group: Sequence[Asked], choices: Sequence[Choice]) -> None:
        """Write the answers down."""
        one = group[0]
        row: Mapping[str, Any] = {
            "prompt_id": one.prompt_id, "temperature": one.temperature, "choices": choices
        }  # fmt: skip
        with self.lock, self.path.open("a", encoding="utf-8") as file:
            file.write("\n" + json.dumps(row))


def _restored(row: Sequence[Any]) -> Choice:
    text, ended, ids, logprobs = row
    if ended not in (STOP, LENGTH):
        raise ValueError(f"an answer that ended by {ended}")
    return Choice(
        text, ended, None if ids is None else tuple(ids),
        None if logprobs is None else tuple(logprobs),
    )  # fmt: skip
