"""The contract of a judge: two answers in the order in which it sees them, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias


class Versus(NamedTuple):
    """Two answers to one prompt, in the order in which a judge sees them."""

    prompt: str
    first: str
    second: str


class Reading(NamedTuple):
    """What was read from a judge's answer.

    Attributes:
        preference: for the first answer, 0 to 1; None where the judge's answer means nothing.
        said: the judge's own words, or why they could not be read.
    """

    preference: float | None
    said: str = ""


Judge: TypeAlias = Callable[[Sequence[Versus]], Sequence[Reading]]
"""One reading for each comparison, in order. A judge is asked in both orders by its caller."""
