"""Progress of a run: a bar with rate and end time on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TextIO

from harness.execute.events import Event, Finished, Progress, Started, Waiting


def duration(seconds: float) -> str:
    """A length of time in words: `45 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = max(1, round(seconds))
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if minutes < 10 and rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


class Reporter:
    """Listens to an executor and tells a person.

    Args:
        weights: expected seconds of every stage that is to be made, by key.
        verbose: also say what begins.
        stream: where to; standard error, so that standard output holds the board alone.
    """

    def __init__(
        self, weights: Mapping[str, float], *, verbose: bool, stream: TextIO | None = None
    ) -> None:
        self._weights = weights
        self._verbose = verbose
        self._stream = stream or sys.stderr
        self._begun = time.monotonic()
        self._ended = 0.0
        self._done = 0
        self._running: dict[str, tuple[str, float]] = {}
        self._since: dict[str, float] = {}
        self._live = self._stream.isatty()

    def __call__(self, event: Event) -> None:
        """Take one event."""
        key = event.stage.key
        if key not in self._weights:
            return
        if isinstance(event, Started):
            self._since[key] = time.monotonic()
            self._running[key] = (event.stage.label, 0.0)
            self._say(f"begin: {event.stage.label}", only=self._verbose)
        elif isinstance(event, Waiting):
            self._say(f"another process is making it, waiting: {event.stage.label}")
        elif isinstance(event, Progress):
            self._advance(event)
        else:
            self._finish(event)
        self._draw()

    def close(self) -> None:
        """Clear the line that was drawn last."""
        if self._live:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _advance(self, event: Progress) -> None:
        key = event.stage.key
        seconds = time.monotonic() - self._since.get(key, self._begun)
        rate = event.done / seconds if seconds > 0.5 else 0.0
        words = f"{event.stage.label} {event.done}/{event.total} {event.unit}"
        self._running[key] = (
            words + (f", {rate:.3g}/s" if rate else ""), event.done / max(1, event.total)
        )  # fmt: skip

    def _finish(self, event: Finished) -> None:
        key, outcome = event.stage.key, event.outcome
        self._running.pop(key, None)
        self._ended += self._weights[key]
        self._done += 1
        words = outcome.status if outcome.status != "done" else f"{outcome.seconds:.1f} s"
        reason = f": {outcome.reason}" if outcome.reason else ""
        reason += f" (traceback: {outcome.traceback})" if outcome.traceback else ""
        left = self._left()
        eta = f", about {duration(left)} left" if left is not None and not self._live else ""
        bad = outcome.status not in ("done", "cached", "skipped")
        count = f"[{self._done}/{len(self._weights)}]"
        text = f"{count} {event.stage.label}: {words}{reason}{eta}"
        self._say(text, only=bad or self._verbose or not self._live)

    def _share(self) -> float:
        running = sum(self._weights[key] * share for key, (_, share) in self._running.items())
        return (self._ended + running) / (sum(self._weights.values()) or 1.0)

    def _left(self) -> float | None:
        """Seconds to the end, from what the finished share took."""
        share = self._share()
        if not 0.02 < share < 1:
            return None
        return (time.monotonic() - self._begun) * (1 - share) / share

    def _say(self, text: str, *, only: bool = True) -> None:
        if only:
            self.close()
            print(text, file=self._stream, flush=True)

    def _draw(self) -> None:
        if not self._live:
            return
        share, left = self._share(), self._left()
        bar = ("#" * int(20 * share)).ljust(20, ".")
        eta = f" {duration(left)} left" if left is not None else ""
        words = "; ".join(label for label, _ in self._running.values())
        text = f"[{bar}] {share:4.0%}{eta} | {self._done}/{len(self._weights)} {words}"
        self._stream.write("\r\x1b[K" + text[: _columns(self._stream) - 1])
        self._stream.flush()


def _columns(stream: TextIO) -> int:
    import os

    try:
        return os.get_terminal_size(stream.fileno()).columns
    except OSError:
        return 80
