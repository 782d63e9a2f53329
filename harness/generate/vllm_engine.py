"""A model in vLLM's own process, as this one sees it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Any

from harness.errors import HarnessError, RequestError
from harness.generate import vllm_worker
from harness.generate.vllm_setup import Answer, Request, Setup, first_words

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process to end, and the same order of work always
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else every engine takes the same cores
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",  # all that it reads lies in a folder of ours
}
_NOT_PASSED_ON = (
    "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV",  # of this environment
    "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF",  # vLLM gives memory back by its own pools
)  # fmt: skip
_PATIENCE = 10.0  # seconds for a process whose pipe is closed to end by itself
_LOG_LINES = 500


class Engine:
    """A process with a model in vLLM; it ends with this one, however this one ends.

    Raises:
        HarnessError: it could not start; says what vLLM said.
    """

    def __init__(self, setup: Setup) -> None:
        self._most_adapters = setup.adapters
        self._process = _start(setup)
        self._log: deque[str] = deque(maxlen=_LOG_LINES)
        # Somebody must read it, or vLLM stops when the pipe is full.
        self._listener = threading.Thread(target=self._keep_log, daemon=True)
        self._listener.start()
        try:
            self._send(first_words(setup))
            ready = self._hear("could not start")
        except BaseException:
            self.close()
            raise
        self.versions: dict[str, str] = ready["ready"]
        self.memory_share: float = ready["memory_share"]

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def write(
        self,
        requests: Sequence[Request],
        most: int,
        ends: Collection[int],
        *,
        logprobs: bool = False,
        report: Callable[[int], None] = lambda done: None,
    ) -> list[Answer]:
        """An answer to each request, in their order, of at most `most` tokens.

        Raises:
            HarnessError: the process died, or vLLM failed; says what it said.
        """
        named = {request.adapter for request in requests} - {None}
        assert len(named) <= self._most_adapters, "one more would take the slot that stays empty"
        rows = [
            {
                "ids": r.ids, "temperature": r.temperature, "seed": r.seed,
                "adapter": None if r.adapter is None else str(r.adapter.resolve()),
            }
            for r in requests
        ]  # fmt: skip
        self._send({
            "do": "write", "requests": rows, "most": most, "ends": sorted(ends),
            "logprobs": logprobs,
        })  # fmt: skip
        found: list[Answer] = []
        while "answers" in (heard := self._hear("failed while it wrote completions")):
            found += [_answer(answer) for answer in heard["answers"]]
            report(len(found))
        assert len(found) == len(requests), "one answer to each request"
        return found

    def rest(self) -> None:
        """Leaves the GPU's memory to others until `wake`."""
        self._send({"do": "rest"})
        self._hear("failed to free its memory")

    def wake(self) -> None:
        """Takes the GPU's memory again."""
        self._send({"do": "wake"})
        self._hear("found too little memory to go on")

    def close(self) -> None:
        """Ends the process; its memory, the GPU's too, is free when this returns."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join(_PATIENCE)

    def _send(self, message: dict[str, Any]) -> None:
        assert self._process.stdin is not None, "it was started with a pipe"
        with suppress(OSError):  # it died; whoever listens finds out why
            self._process.stdin.write(json.dumps(message) + "\n")
            self._process.stdin.flush()

    def _hear(self, trouble: str) -> dict[str, Any]:
        assert self._process.stdout is not None, "it was started with a pipe"
        if line := self._process.stdout.readline():
            heard: dict[str, Any] = json.loads(line)
            return heard
        status = self._process.wait()
        raise HarnessError(
            f"vLLM {trouble}: {self._last_words(status)}. generation.backend = transformers does "
            "without it"
        )

    def _keep_log(self) -> None:
        assert self._process.stderr is not None, "it was started with a pipe"
        with self._process.stderr as pipe:
            self._log.extend(pipe)

    def _last_words(self, status: int) -> str:
        if status < 0:
            return f"its process was killed by signal {-status}"
        self._listener.join(_PATIENCE)
        lines = list(self._log)
        errors = [line for line in lines if re.search(r"^(\w+\.)*\w*(Error|Exception)\b", line)]
        # The last error is often of cleaning up after the one that counts.
        return (errors or lines or [f"its process ended with status {status}"])[-1].strip()


def _start(setup: Setup) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if k not in _NOT_PASSED_ON}
    python = setup.python or sys.executable
    try:
        # In our process group, which whoever ends a worker ends as a whole.
        return subprocess.Popen(
            [python, str(vllm_worker.__file__)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="replace",
            env={**environment, **_ENVIRONMENT},
        )  # fmt: skip
    except OSError as error:
        raise RequestError(f"generation.python = {python} cannot be run: {error}") from error


def _answer(told: dict[str, Any]) -> Answer:
    logprobs = told.get("logprobs")
    return Answer(tuple(told["ids"]), None if logprobs is None else tuple(logprobs))
