"""How long to wait before a call is made again."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_WISH = 900.0
"""Seconds: who asks for a longer wait is not waited for; the same command goes on later."""

_DOUBLINGS = 60


@dataclass(frozen=True)
class Patience:
    """Exponential backoff with jitter, and at least as long as the end point asks for.

    Attributes:
        retries: after the first try.
        first: seconds before the first retry; twice as many before each further one.
        longest: seconds, before jitter.
        draw: of the jitter, which moves no verdict.
    """

    retries: int
    first: float = 0.5
    longest: float = 60.0
    draw: random.Random = field(default_factory=random.Random)

    def seconds(self, tries: int, wish: float | None) -> float | None:
        """Before the next try after `tries` failed ones; None where no more shall be made."""
        if tries > self.retries or (wish is not None and wish > LONGEST_WISH):
            return None
        # Half of it is drawn, so that calls that failed together do not come back together.
        backoff = min(self.longest, self.first * 2.0 ** min(tries - 1, _DOUBLINGS))
        return max(backoff * self.draw.uniform(0.5, 1.0), wish or 0.0)


def wish(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that an end point asks to wait, by its Retry-After: a number or a date."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        when = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None  # a header that means nothing asks for nothing
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())
