"""A contestant's side of a race: it waits between rounds, and says what each round took.

Only the standard library, because this also runs inside the peers' own environments.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any


def resident_peak() -> int:
    """The most memory that this process ever held, bytes."""
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


class Turns:
    """Lines of JSON on what was the standard output; `go N` and `end` on the standard input.

    What libraries print goes to the standard error from now on: a progress bar is no answer.
    """

    def __init__(
        self, peak: Callable[[], int] = resident_peak, wait: Callable[[], None] = lambda: None
    ) -> None:
        """`peak` gives bytes; `wait` returns when the device has done all that it was given."""
        self._answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._peak, self._wait = peak, wait
        self._left, self._wall, self._cpu = 0, 0.0, 0.0
        self._losses: list[float] = []

    def ready(self, **facts: Any) -> None:
        """All is built: say so, and wait for the first round."""
        self._say(**facts, cpu=time.process_time(), peak=self._peak())

    def step_done(self, loss: float) -> None:
        """Called after each step; answers and waits where it was the round's last."""
        self._losses.append(loss)
        self._left -= 1
        if self._left == 0:
            self._wait()
            wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
            losses, self._losses = self._losses, []
            self._say(wall=wall, cpu=cpu, losses=losses, peak=self._peak())

    def _say(self, **answer: Any) -> None:
        print(json.dumps(answer), file=self._answers, flush=True)
        word, *count = sys.stdin.readline().split() or ["end"]
        if word == "end":
            raise SystemExit(0)
        self._left = int(count[0])
        self._wall, self._cpu = time.perf_counter(), time.process_time()
