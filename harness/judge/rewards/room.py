"""Which part of a prompt and an answer a model of limited length sees: the answer comes first."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

Length = Callable[[str, str], int]
"""Tokens that a prompt and an answer take together, with whatever frames them."""


class Shown(NamedTuple):
    """What fits.

    Attributes:
        prompt: its end, where it had to be cut: there is what the answer answers.
        answer: its beginning, where it alone is too long.
    """

    prompt: str
    answer: str


def make_room(prompt: str, answer: str, length: Length, limit: int | None) -> Shown:
    """As much as fits of an answer, and before it as much as fits of its prompt's end."""
    if limit is None or length(prompt, answer) <= limit:
        return Shown(prompt, answer)
    if length("", answer) <= limit:
        kept = _most(len(prompt), lambda n: length(prompt[len(prompt) - n :], answer) <= limit)
        return Shown(prompt[len(prompt) - kept :], answer)
    return Shown("", answer[: _most(len(answer), lambda n: length("", answer[:n]) <= limit)])


def _most(count: int, fits: Callable[[int], bool]) -> int:
    """The most characters that fit, from 0; `count` do not."""
    low, high = 0, count
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
