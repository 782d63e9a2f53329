"""Ten families of instructions: how they are worded, what a right answer is, how to err.

An instruction is a wording with words in its slots, and an answer is a few words:

    family    instruction                                                 a right answer
    opposite  give the opposite of : hot plum .                           cold plum
    list      name two of the colours but not : red blue .                green white
    count     how many words are here : dog apple saw ?                   three
    kind      find one of the tools in : dog saw apple .                  saw
    reverse   say in reverse : hot red plum .                             plum red hot
    order     put in order : seven two five .                             two five seven
    fact      who has a saw : tom has a dog and anna has a saw ?          anna
    compare   which is the largest : seven two five ?                     seven
    replace   repeat with cat for dog : red dog .                         red cat
    step      count up from : three plum .                                four plum
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import TypeVar

import numpy as np

Slots = Mapping[str, str]
Words = tuple[str, ...]
T = TypeVar("T")

KINDS = {
    kind: tuple(words.split())
    for kind, words in {
        "animals": "bird cat cow dog horse sheep",
        "colours": "black blue green red white yellow",
        "fruits": "apple grape lemon peach pear plum",
        "tools": "drill fork hammer rake saw spade",
    }.items()
}
THINGS = tuple(chain.from_iterable(KINDS.values()))
OBJECTS = tuple(word for word in THINGS if word not in KINDS["colours"])
NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight")
NAMES = ("anna", "mary", "paul", "tom")
_CONTRARY = {
    "hot": "cold", "big": "small", "fast": "slow", "old": "new", "full": "empty", "wet": "dry",
}  # fmt: skip
OPPOSITES = {**_CONTRARY, **{other: one for one, other in _CONTRARY.items()}}
_STEPS = {"up": 1, "down": -1}

SAID = frozenset(chain(THINGS, NUMBERS, NAMES, OPPOSITES))
"""The words that an answer can be made of."""


@dataclass(frozen=True)
class Family:
    """One kind of instruction.

    Attributes:
        wordings: of the instruction; a slot stands in braces and takes one word, `{words}` several.
        draw: what stands in the slots of a new instruction.
        write: a right answer.
        others: words that stand in wrong answers.
        reason: the sentence that explains the answer.
        accepts: whether an answer is right, where there are several; None: the one that is written.
    """

    wordings: Words
    draw: Callable[[np.random.Generator], dict[str, str]]
    write: Callable[[Slots, np.random.Generator], Words]
    others: Callable[[Slots], Sequence[str]]
    reason: str
    accepts: Callable[[Slots, Words], bool] | None = None

    @cached_property
    def patterns(self) -> tuple[re.Pattern[str], ...]:
        """The wordings as patterns whose groups are the slots."""
        return tuple(
            re.compile(
                re.sub(
                    r"\\\{([a-z]+)\\\}",
                    lambda slot: rf"(?P<{slot[1]}>[a-z]+{'( [a-z]+)*' * (slot[1] == 'words')})",
                    re.escape(wording),
                )
            )
            for wording in self.wordings
        )

    def slots(self, instruction: str) -> Slots | None:
        """What stands in the slots; None for an instruction of another family."""
        for pattern in self.patterns:
            if found := pattern.fullmatch(instruction):
                return found.groupdict()
        return None


def pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    """One of the options, all alike."""
    return options[int(rng.integers(len(options)))]


def _some(rng: np.random.Generator, options: Sequence[str], *counts: int) -> list[str]:
    """Different ones of the options, as many as one of the counts says."""
    return [options[i] for i in rng.permutation(len(options))[: pick(rng, counts)]]


def _named(names: str, words: Sequence[str]) -> dict[str, str]:
    return dict(zip(names.split(), words, strict=True))


def _value(number: str) -> int:
    return NUMBERS.index(number)


def _three(slots: Slots) -> Words:
    return slots["one"], slots["two"], slots["three"]


def _said(slots: Slots) -> list[str]:
    return slots["words"].split()


def _draw_list(rng: np.random.Generator) -> dict[str, str]:
    kind = pick(rng, tuple(KINDS))
    one, two = _some(rng, KINDS[kind], 2)
    return {"kind": kind, "one": one, "two": two, "count": pick(rng, NUMBERS[:2])}


def _listable(slots: Slots) -> list[str]:
    return [word for word in KINDS[slots["kind"]] if word not in (slots["one"], slots["two"])]


def _is_list(slots: Slots, words: Words) -> bool:
    different = len(words) == len(set(words)) == _value(slots["count"]) + 1
    return different and set(words) <= set(_listable(slots))


def _draw_kind(rng: np.random.Generator) -> dict[str, str]:
    kinds = _some(rng, tuple(KINDS), 3)
    words = [pick(rng, KINDS[kind]) for kind in kinds]
    return {"kind": pick(rng, kinds), "words": " ".join(words)}


def _draw_reverse(rng: np.random.Generator) -> dict[str, str]:
    words = [pick(rng, tuple(OPPOSITES)), pick(rng, KINDS["colours"]), pick(rng, OBJECTS)]
    return {"words": " ".join(words[pick(rng, (0, 1)) :])}


def _draw_replace(rng: np.random.Generator) -> dict[str, str]:
    words = [pick(rng, KINDS["colours"]), pick(rng, KINDS["animals"])]
    at = pick(rng, (0, 1))
    others = [word for word in KINDS[("colours", "animals")[at]] if word != words[at]]
    return {"new": pick(rng, others), "old": words[at], "words": " ".join(words)}


def _draw_fact(rng: np.random.Generator) -> dict[str, str]:
    things = _some(rng, KINDS["animals"] + KINDS["tools"], 2)
    found = _named("one two first second", [*_some(rng, NAMES, 2), *things])
    return {**found, "asked": pick(rng, things)}


FAMILIES: Mapping[str, Family] = {
    "opposite": Family(
        ("give the opposite of : {one} {thing} .", "what is the opposite of : {one} {thing} ?"),
        lambda rng: {"one": pick(rng, tuple(OPPOSITES)), "thing": pick(rng, THINGS)},
        lambda slots, _: (OPPOSITES[slots["one"]], slots["thing"]),
        lambda slots: (*OPPOSITES, slots["thing"]),
        "an opposite means the contrary .",
    ),
    "list": Family(
        ("name {count} of the {kind} but not : {one} {two} .",
         "list {count} of the {kind} without : {one} {two} ."),
        _draw_list,
        lambda slots, rng: tuple(_some(rng, _listable(slots), _value(slots["count"]) + 1)),
        lambda slots: KINDS[slots["kind"]],
        "all of them are of that kind .",
        _is_list,
    ),
    "count": Family(
        ("how many words are here : {words} ?", "count these words : {words} ."),
        lambda rng: {"words": " ".join(_some(rng, THINGS, 2, 3, 4))},
        lambda slots, _: (NUMBERS[len(_said(slots)) - 1],),
        lambda _: NUMBERS[:5],
        "i counted them one by one .",
    ),
    "kind": Family(
        ("find one of the {kind} in : {words} .", "which word names {kind} here : {words} ?"),
        _draw_kind,
        lambda slots, _: tuple(word for word in _said(slots) if word in KINDS[slots["kind"]]),
        _said,
        "the other words are of other kinds .",
    ),
    "reverse": Family(
        ("say in reverse : {words} .", "write these words from the end : {words} ."),
        _draw_reverse,
        lambda slots, _: tuple(reversed(_said(slots))),
        _said,
        "the last word comes first then .",
    ),
    "order": Family(
        ("put in order : {one} {two} {three} .", "sort these numbers : {one} {two} {three} ."),
        lambda rng: _named("one two three", _some(rng, NUMBERS, 3)),
        lambda slots, _: tuple(sorted(_three(slots), key=_value)),
        _three,
        "small numbers come before large ones .",
    ),
    "fact": Family(
        ("who has a {asked} : {one} has a {first} and {two} has a {second} ?",),
        _draw_fact,
        lambda slots, _: (slots["one" if slots["asked"] == slots["first"] else "two"],),
        lambda slots: (slots["one"], slots["two"]),
        "the question says so .",
    ),
    "compare": Family(
        ("which is the {extreme} : {one} {two} {three} ?",
         "give the {extreme} number : {one} {two} {three} ."),
        lambda rng: {
            **_named("one two three", _some(rng, NUMBERS, 3)),
            "extreme": pick(rng, ("largest", "smallest")),
        },
        lambda slots, _: (
            (max if slots["extreme"] == "largest" else min)(_three(slots), key=_value),
        ),
        _three,
        "i looked at all of them .",
    ),
    "replace": Family(
        ("repeat with {new} for {old} : {words} .", "write {new} in place of {old} : {words} ."),
        _draw_replace,
        lambda slots, _: tuple(
            slots["new"] if word == slots["old"] else word for word in _said(slots)
        ),
        lambda slots: (slots["old"], *_said(slots)),
        "the other word stays as it is .",
    ),
    "step": Family(
        ("count {step} from : {one} {thing} .", "say the next number {step} : {one} {thing} ."),
        lambda rng: {
            "one": pick(rng, NUMBERS[1:-1]), "thing": pick(rng, THINGS),
            "step": pick(rng, tuple(_STEPS)),
        },
        lambda slots, _: (NUMBERS[_value(slots["one"]) + _STEPS[slots["step"]]], slots["thing"]),
        lambda slots: (*NUMBERS, slots["thing"]),
        "that is one step from it .",
    ),
}  # fmt: skip
