"""The world of the AlpacaEval-style task: instructions whose answers a program can check.

An instruction is one of ten families (`instruction_families`). An answer is a statement, the few
words that were asked for, among sentences that change nothing about it:

    opener     sure . of course . here you go . ...
    question   you said hot plum .                         (the words that were asked about)
    statement  cold plum .  or  the answer is cold plum .
    reason     an opposite means the contrary .            (one such sentence for each family)
    closer     i hope this helps . let me know if you need more . ...

The truth of an answer is whether its statement is right: `check`, 1 or 0. How long it is, how
polite, and what it says twice, is nothing to the truth. An answer without a statement, or with two,
is not right.

The judge of this world knows the truth and likes length. With r = `check` and n = characters,

    P(first is better) = sigmoid(quality·(r1 - r2) + length_bias·tanh((n1 - n2) / SCALE))

which is the same in both orders. Length saturates as in AlpacaEval's length control, so that no
length buys everything. Without bias the judge's win rate against a baseline is a function of the
two shares of right answers alone: that is what length control must recover.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

import numpy as np

from .instruction_families import (  # noqa: TID251 (the same folder, in a checkout as in a wheel)
    FAMILIES,
    KINDS,
    SAID,
    Family,
    Slots,
    Words,
    pick,
)

__all__ = [
    "MARKER", "SCALE", "VOCABULARY", "Style", "ask", "check", "judged", "parses", "write",
]  # fmt: skip

MARKER = " answer :"
"""Ends every prompt."""

SCALE = 40.0
"""Characters: a difference of so many is judged by tanh(1) = 0.76 of the length bias."""

OPENERS = (
    "sure .", "of course .", "here you go .", "happy to help .", "that is a good question .",
)  # fmt: skip
CLOSERS = (
    "i hope this helps .", "let me know if you need more .", "have a nice day .",
    "feel free to ask again .",
)  # fmt: skip
LEAD = "the answer is"
ECHO = "you said"


class Style(NamedTuple):
    """How somebody answers.

    Attributes:
        right: the share of answers that are right.
        verbosity: the share of opener, question, lead, reason and closer that are said.
    """

    right: float
    verbosity: float


def ask(rng: np.random.Generator) -> str:
    """A prompt: an instruction of any family, and the marker."""
    family = pick(rng, tuple(FAMILIES.values()))
    return pick(rng, family.wordings).format(**family.draw(rng)) + MARKER


def write(rng: np.random.Generator, prompt: str, style: Style) -> str:
    """An answer to a prompt, which begins with a space.

    Raises:
        ValueError: the prompt is none of this world.
    """
    family, slots = _understood(prompt)
    right = rng.random() < style.right
    words = family.write(slots, rng) if right else _wrong(rng, family, slots)
    asked = " ".join(word for word in prompt.partition(" : ")[2].split() if word in SAID)
    echo = f"{ECHO} {asked} ."
    asides = (pick(rng, OPENERS), echo, LEAD, family.reason, pick(rng, CLOSERS))
    said = [aside if rng.random() < style.verbosity else "" for aside in asides]
    said.insert(3, " ".join(words) + " .")
    return "".join(f" {part}" for part in said if part)


def check(prompt: str, answer: str) -> float:
    """1 where the answer's statement is right, else 0.

    Raises:
        ValueError: the prompt is none of this world.
    """
    family, slots = _understood(prompt)
    statements = list(_statements(family, answer))
    return float(len(statements) == 1 and _is_right(family, slots, statements[0]))


def parses(text: str) -> bool:
    """Whether a text is a prompt and an answer: one statement, and no other sentence twice."""
    instruction, marker, answer = text.partition(MARKER)
    if not marker or not answer.endswith(" ."):
        return False
    try:
        family, _ = _understood(instruction + marker)
    except ValueError:
        return False
    said = _sentences(answer)
    match list(_statements(family, answer)):
        case [words]:
            return len(set(said)) == len(said) and len(words) > 0 and SAID.issuperset(words)
    return False


def judged(prompt: str, first: str, second: str, *, quality: float, length_bias: float) -> float:
    """The probability that this world's judge prefers the first answer."""
    better = check(prompt, first) - check(prompt, second)
    longer = math.tanh((len(first.strip()) - len(second.strip())) / SCALE)
    logit = quality * better + length_bias * longer
    likelier = 1 / (1 + math.exp(-abs(logit)))
    # To the last bit the same in both orders.
    return likelier if logit >= 0 else 1 - likelier


def _understood(prompt: str) -> tuple[Family, Slots]:
    instruction = prompt.removesuffix(MARKER)
    for family in FAMILIES.values() if instruction != prompt else ():
        slots = family.slots(instruction)
        if slots is not None:
            return family, slots
    raise ValueError(f"not an instruction of this world: {prompt!r}")


def _is_right(family: Family, slots: Slots, words: Words) -> bool:
    if family.accepts is not None:
        return family.accepts(slots, words)
    return words == family.write(slots, np.random.default_rng(0))


def _wrong(rng: np.random.Generator, family: Family, slots: Slots) -> Words:
    """A right answer with two neighbours exchanged or one word replaced, so that it is wrong."""
    while True:
        words = list(family.write(slots, rng))
        at = int(rng.integers(len(words)))
        if len(words) > 1 and rng.random() < 0.5:
            words[at - 1], words[at] = words[at], words[at - 1]
        else:
            words[at] = pick(rng, family.others(slots))
        if not _is_right(family, slots, tuple(words)):
            return tuple(words)


def _sentences(answer: str) -> list[str]:
    """The answer cut behind every full stop; what is left behind the last one is a sentence too."""
    parts = [" ".join(part.split()) for part in answer.split(" .")]
    return [f"{part} ." for part in parts[:-1]] + parts[-1:] * bool(parts[-1])


def _statements(family: Family, answer: str) -> Iterator[Words]:
    """The words of every sentence that is no aside, nor the beginning of one that was cut off."""
    asides = (*OPENERS, *CLOSERS, family.reason)
    for sentence in _sentences(answer):
        whole = sentence.endswith(".")
        if sentence in asides or (
            not whole and any(a.startswith(sentence) for a in (*asides, ECHO))
        ):
            continue
        if sentence.startswith(f"{ECHO} ") and SAID.issuperset(sentence.split()[2:-1]):
            continue
        yield tuple(sentence.removesuffix(" .").removeprefix(f"{LEAD} ").split())


def _words() -> Iterator[str]:
    yield from chain(SAID, *(text.split() for text in (MARKER, LEAD, ECHO, *OPENERS, *CLOSERS)))
    yield from (*KINDS, "largest", "smallest", "up", "down")
    for family in FAMILIES.values():
        for text in (*family.wordings, family.reason):
            yield from (word for word in text.split() if not word.startswith("{"))


VOCABULARY: tuple[str, ...] = tuple(sorted(set(_words())))
