"""The grammar of short posts and their summaries, and which facts each of them states.

    post      = sentence "." sentence "." ...     a sentence tells one fact or is filler
    prompt    = post "tl;dr :"
    summary   = phrase {"," phrase} "."           a phrase states one fact, in the order of SLOTS

A fact is a slot and its value: the thing that broke and "laptop". A slot has its own values, two
ways in which a post tells them, and one phrase in which a summary states them:

    somebody broke my laptop . i paid 300 dollars . thanks for reading . tl;dr :
    broken laptop , cost 300 dollars .
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

Fact: TypeAlias = tuple[str, str]
"""A slot's name and a value."""

MARKER = "tl;dr :"


class Slot(NamedTuple):
    """What a post can say one thing about; `_` stands for the value."""

    name: str
    values: tuple[str, ...]
    tellings: tuple[str, ...]
    phrase: str


def _slot(name: str, values: str, tellings: str, phrase: str) -> Slot:
    return Slot(name, tuple(values.split()), tuple(tellings.split(" | ")), phrase)


SLOTS = (
    _slot(
        "thing",
        "bike boat camera car guitar laptop phone tent",
        "my _ is broken | somebody broke my _",
        "broken _",
    ),
    _slot(
        "culprit",
        "boss brother cousin friend landlord neighbour roommate sister",
        "my _ did it | it was my _",
        "by my _",
    ),
    _slot(
        "place",
        "berlin boston dublin london madrid oslo paris rome",
        "it happened in _ | we live in _",
        "in _",
    ),
    _slot(
        "day",
        "monday tuesday wednesday thursday friday saturday sunday",
        "that was on _ | it was last _",
        "on _",
    ),
    _slot(
        "cost",
        "20 40 50 80 90 200 300 500",
        "i paid _ dollars | it was worth _ dollars",
        "cost _ dollars",
    ),
    _slot(
        "mood",
        "afraid angry ashamed confused lonely sad sick tired",
        "i am so _ | this makes me _",
        "feel _",
    ),
    _slot(
        "plan",
        "apologise argue forget leave move shout sue wait",
        "i think i should _ | maybe i will _",
        "want to _",
    ),
)
FILLERS = (
    *("thanks for reading", "it is a long story", "sorry for my english"),
    *("nobody believes me", "i could not sleep", "i never post here", "please help me"),
)


def _stating(wordings: Mapping[str, Sequence[str]]) -> dict[str, Fact]:
    """What each wording states, with every value of its slot in it."""
    return {
        wording.replace("_", value): (slot.name, value)
        for slot in SLOTS
        for wording in wordings[slot.name]
        for value in slot.values
    }


TOLD = _stating({slot.name: slot.tellings for slot in SLOTS})
"""Sentences of posts, without the full stop, by what they tell."""

STATED = _stating({slot.name: (slot.phrase,) for slot in SLOTS})
"""Phrases of summaries by what they state."""

PHRASES = {fact: phrase for phrase, fact in STATED.items()}
ORDER = {slot.name: place for place, slot in enumerate(SLOTS)}
VOCABULARY: tuple[str, ...] = tuple(
    sorted({".", ",", *MARKER.split()}.union(*(t.split() for t in (*TOLD, *STATED, *FILLERS))))
)


def facts(prompt: str) -> frozenset[Fact]:
    """The facts that a post tells; what is no sentence of the grammar tells none."""
    return frozenset(TOLD[told] for told in _sentences(prompt) if told in TOLD)


def phrases(summary: str) -> list[str]:
    """A summary cut at its commas; one that does not end in a full stop was cut off.

    The last phrase of such a one gets a mark that no phrase has, so that it states nothing.
    """
    body = summary.strip(" ")
    whole = body.endswith(" .")
    cut = (body.removesuffix(" .") if whole else body + " ...").split(" , ")
    return cut if body else [""]


def parses(text: str) -> bool:
    """Whether a text is a post of the grammar, the marker and a well-formed summary."""
    post, marker, summary = text.partition(f" {MARKER} ")
    told = _sentences(post)
    return (
        bool(marker)
        and post.endswith(" .")
        and all(sentence in TOLD or sentence in FILLERS for sentence in told)
        and _well_formed(summary)
    )


def _well_formed(summary: str) -> bool:
    stated = phrases(summary)
    if summary != " , ".join(stated) + " ." or not all(phrase in STATED for phrase in stated):
        return False
    places = [ORDER[STATED[phrase][0]] for phrase in stated]
    return all(one < next_ for one, next_ in pairwise(places))


def _sentences(prompt: str) -> list[str]:
    return prompt.removesuffix(f" {MARKER}").removesuffix(" .").split(" . ")
