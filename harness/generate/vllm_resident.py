"""The engine that a worker keeps between its stages, ended with it."""

from __future__ import annotations

import atexit
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.generate.vllm_engine import Engine
from harness.generate.vllm_setup import Setup


class Engines:
    """The engine that this process keeps between two stages.

    One, for what stages share is the reference policy; its adapters are served by the same engine.
    Whole models that were trained are each another one: the engine before it is ended first.
    """

    def __init__(self) -> None:
        self._kept: tuple[Any, Engine] | None = None
        atexit.register(self.close)

    @contextmanager
    def borrowed(self, setup: Setup) -> Iterator[Engine]:
        """Lend an engine until the `with` block ends; between two loans it holds no GPU memory.

        Whatever ends in an error takes the engine with it.
        """
        key = (setup, _sign(setup.model))
        engine = self._resident(key) or Engine(setup)
        self._kept = key, engine
        try:
            yield engine
        except BaseException:
            self.close()
            raise
        try:
            engine.rest()
        except HarnessError:  # it has written what it was asked for; the next loan starts another
            self.close()

    def _resident(self, key: Any) -> Engine | None:
        """The engine of this key, awake; any other one is ended, and so is one that is broken."""
        if self._kept is not None and self._kept[0] == key:
            with suppress(HarnessError):
                self._kept[1].wake()
                return self._kept[1]
        self.close()
        return None

    def close(self) -> None:
        """End the engine, if there is one."""
        if self._kept is not None:
            engine, self._kept = self._kept[1], None
            engine.close()


ENGINES = Engines()
"""This process's, here because a stage is called with folders and nothing else."""


def _sign(folder: Path) -> tuple[tuple[str, int, int, int], ...]:
    """What changes when a folder is replaced by another of the same name."""
    facts = [(path.name, path.stat()) for path in sorted(folder.glob("*")) if path.is_file()]
    return tuple((name, s.st_size, s.st_mtime_ns, s.st_ino) for name, s in facts)
