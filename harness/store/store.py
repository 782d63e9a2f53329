"""Where results are kept: one folder per stage, complete or not there.

    stages/<verb>/<key>/   a complete result and its manifest.json
    work/<key>/out         what is being written; renamed to the folder above when complete
    work/<key>/scratch     checkpoints; they survive a kill
    locks/<key>.lock       held by the process that does the stage
    failures/<key>.txt     the traceback of its last failure
    shared/                caches of stages, keyed by content

A lock belongs to the kernel and ends with its process, however that ends. Its file stays:
removing it would let two processes hold two locks of one name.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.errors import HarnessError, RequestError, StoreError
from harness.store.failures import in_words
from harness.store.manifest import Manifest, flush, read_manifest, write_manifest
from harness.store.run_stage import run_stage
from harness.store.stage import Report, Stage, Work

Word = Literal["waiting", "started"]
Notice = Callable[[Word], None]
"""Hears that another process does the stage just now, and that the work begins here."""


def _unheard(*_: object) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class Store:
    """All results under one folder. Any number of processes may use it at once."""

    root: Path

    @classmethod
    def open(cls, root: Path) -> Store:
        """A store in which results can be kept; makes the folder.

        Raises:
            RequestError: the folder cannot be made, or nothing can be written there.
        """
        root = root.expanduser().absolute()
        try:
            for name in ("stages", "work", "locks", "failures", "shared"):
                (root / name).mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=root / "work") as file:
                file.write(b"room for a byte")
        except OSError as error:
            raise RequestError(
                f"cannot keep results in {root}: {error.strerror}; choose another folder"
            ) from error
        return cls(root)

    def folder(self, stage: Stage) -> Path:
        """Where the stage's result is, or will be."""
        return self.root / "stages" / stage.verb / stage.key

    def failure(self, stage: Stage) -> Path:
        """Where the traceback of its last failure is, if it failed."""
        return self.root / "failures" / f"{stage.key}.txt"

    def manifest(self, stage: Stage) -> Manifest | None:
        """How the stage ended; None where it did not end yet."""
        return read_manifest(self.folder(stage), stage.key)

    def is_done(self, stage: Stage) -> bool:
        """Whether the stage has a result that others can build on."""
        manifest = self.manifest(stage)
        return manifest is not None and manifest.status == "done"

    def perform(
        self, stage: Stage, report: Report = _unheard, notice: Notice = _unheard
    ) -> Manifest:
        """Makes the stage's result, unless it is there or another process is making it.

        Runs the stage function in this process.

        Raises:
            StoreError: the result cannot be kept, or an input is not there.
            HarnessError: the code changed under us, or the function said so.
            Exception: whatever else the function raised; nothing is kept but its scratch.
        """
        try:
            return self._perform(stage, report, notice)
        except Exception as error:
            known = in_words(error, self.root)
            if known is None or known is error:
                raise
            raise known from error

    def tidy(self, stage: Stage) -> None:
        """Removes what a process left that was killed between its result and its clearing up."""
        if self._work(stage).exists() and self.manifest(stage) is not None:
            with suppress(OSError), self._locked(stage, _unheard):
                shutil.rmtree(self._work(stage))

    def _perform(self, stage: Stage, report: Report, notice: Notice) -> Manifest:
        if (found := self.manifest(stage)) is not None:
            return found
        with self._locked(stage, notice):
            if (found := self.manifest(stage)) is not None:
                return found
            self._check(stage)
            notice("started")
            manifest = self._make(stage, report)
            self._place(stage)
            shutil.rmtree(self._work(stage), ignore_errors=True)
            self.failure(stage).unlink(missing_ok=True)
            return manifest

    def _work(self, stage: Stage) -> Path:
        return self.root / "work" / stage.key

    @contextmanager
    def _locked(self, stage: Stage, notice: Notice) -> Iterator[None]:
        from filelock import FileLock, Timeout  # 20 ms that `harness --help` need not pay

        lock = FileLock(self.root / "locks" / f"{stage.key}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            notice("waiting")
            lock.acquire(poll_interval=0.1)
        try:
            yield
        finally:
            lock.release()

    def _check(self, stage: Stage) -> None:
        for name, source in stage.inputs.items():
            if not self.is_done(source) and name not in stage.tolerates:
                raise StoreError(f"{stage.label}: its {name} ({source.label}) is not done")
        # A worker imports the code later than the run computed the key from it.
        if stage.key_now() != stage.key:
            raise HarnessError(
                f"{stage.label}: its code or its libraries changed since this run began; "
                "run the same command again"
            )

    def _make(self, stage: Stage, report: Report) -> Manifest:
        out, scratch = self._work(stage) / "out", self._work(stage) / "scratch"
        if out.exists():
            shutil.rmtree(out)
        out.mkdir(parents=True)
        scratch.mkdir(exist_ok=True)
        inputs = {n: self.folder(s) for n, s in stage.inputs.items() if self.is_done(s)}
        shared = self.root / "shared"
        work = Work(stage.settings, inputs, out, scratch, report, stage.means, shared)
        manifest = run_stage(stage, work)
        write_manifest(out, manifest)
        return manifest

    def _place(self, stage: Stage) -> None:
        folder = self.folder(stage)
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():  # damaged, or we would not be here; perhaps no folder at all
            folder.rename(Path(tempfile.mkdtemp(dir=self._work(stage))) / "damaged")
        (self._work(stage) / "out").rename(folder)
        flush(folder.parent)
