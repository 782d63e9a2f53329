"""The grammar of short film reviews, and what a sentence of it says about the film.

    review    = sentence sentence [sentence [sentence]]
    sentence  = clause "." | clause "," "but" clause "."
    clause    = thing ("was" | "felt" | "seemed") judgement   the plot was not very good
              | person "found" thing judgement                we found it a bit dull
              | person feeling thing                          i did not enjoy the ending
              | statement                                     the film runs for two hours
    thing     = "it" | "the" aspect
    judgement = [degree | denial [intensifier]] adjective
    feeling   = [degree | denial [intensifier]] verb

A word has a value v in {0, ±1, ±1.5, ±2}, a degree a factor d, a denial a strength n. Polarity p:

    degree    p = d·v                             very good: 1.25·1.5 = 1.875
    denial    p = -n·sign(d·v)·(4 - |d·v|) / 4    not good: -0.625, not very good: -0.53125
    contrast  p = (first + 3·second) / 4          what follows "but" is what is meant
    statement p = 0

A denial flips and dampens. It denies the claim as intensified, and to deny a strong claim says less
than to deny a weak one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ASPECTS = (
    *("acting", "camerawork", "cast", "comedy", "dialogue", "direction", "editing", "ending"),
    *("film", "hero", "humour", "movie", "music", "opening", "plot", "script", "story", "villain"),
)
COPULAS = ("was", "felt", "seemed")
PERSONS = ("i", "we")
STATEMENTS = tuple(
    tuple(tuple(slot.split("|")) for slot in statement.split())
    for statement in (
        "the film|movie runs for two|three|four hours",
        "it is set in london|paris|rome|tokyo",
        "i|we saw it on friday|saturday|sunday|monday",
    )
)
SENTENCES = range(2, 5)


def _by_word(grades: Mapping[float, str]) -> dict[str, float]:
    return {word: value for value, words in grades.items() for word in words.split()}


_ADJECTIVES = _by_word(
    {
        2.0: "brilliant excellent gripping superb wonderful",
        1.5: "charming clever fresh funny good moving",
        1.0: "decent nice pleasant solid",
        0.0: "french long modern old quiet short",
        -1.0: "bland clumsy predictable weak",
        -1.5: "bad boring dull stale stupid tedious",
        -2.0: "awful dreadful horrible painful terrible",
    }
)
_VERBS = _by_word(
    {
        2.0: "adore love",
        1.5: "admire enjoy",
        1.0: "like",
        0.0: "notice remember",
        -1.0: "dislike",
        -1.5: "despise resent",
        -2.0: "hate loathe",
    }
)
_PAST = {verb + ("d" if verb.endswith("e") else "ed"): value for verb, value in _VERBS.items()}


@dataclass(frozen=True)
class Denial:
    """How strongly a denial denies, the words it denies, and how they can be intensified."""

    strength: float
    heads: Mapping[str, float]
    intensifiers: Mapping[str, float]


@dataclass(frozen=True)
class Phrase:
    """How an evaluation is worded: `[degree | denial [intensifier]] head`.

    Attributes:
        heads: value of each word that ends the phrase where nothing is denied.
        degrees: factor of each degree.
        denials: by their words.
    """

    heads: Mapping[str, float]
    degrees: Mapping[str, float]
    denials: Mapping[str, Denial]

    def polarity(self, text: str) -> float | None:
        """What the text says; None where it is no such phrase."""
        for opening, denial in self.denials.items():
            if text.startswith(opening + " "):
                rest = text.removeprefix(opening + " ")
                claim = _claim(rest, denial.heads, denial.intensifiers)
                return None if claim is None else _denied(claim, denial.strength)
        return _claim(text, self.heads, self.degrees)


def _claim(text: str, heads: Mapping[str, float], degrees: Mapping[str, float]) -> float | None:
    degree, gap, head = text.rpartition(" ")
    factor = degrees.get(degree) if gap else 1.0
    value = heads.get(head)
    return None if factor is None or value is None else factor * value


def _denied(claim: float, strength: float) -> float:
    if claim == 0:
        return 0.0
    size = strength * (4 - abs(claim)) / 4
    return -size if claim > 0 else size


_VERY = {"very": 1.25, "utterly": 1.5}
_TRULY = {"truly": 1.25, "really": 1.5}

JUDGEMENT = Phrase(
    heads=_ADJECTIVES,
    degrees={"slightly": 0.25, "a bit": 0.5, "rather": 0.75, **_VERY},
    denials={
        "not": Denial(1.0, _ADJECTIVES, _VERY),
        "never": Denial(1.25, _ADJECTIVES, _VERY),
        "hardly": Denial(0.5, _ADJECTIVES, {}),
    },
)
FEELING = Phrase(
    heads=_PAST,
    degrees={"somewhat": 0.5, **_TRULY},
    denials={"did not": Denial(1.0, _VERBS, _TRULY)},
)


def polarity(sentence: str) -> float | None:
    """What a sentence says about the film, in [-3, 3]; None where it does not parse."""
    words = sentence.split(" ")
    if words.pop() != ".":
        return None
    if "but" not in words:
        return _clause(words)
    turn = words.index("but")
    first, second = _clause(words[: turn - 1]), _clause(words[turn + 1 :])
    if first is None or second is None or words[turn - 1] != ",":
        return None
    return (first + 3 * second) / 4


def sentences(text: str) -> list[str]:
    """The text cut behind every full stop; blanks around it count for nothing."""
    cut: list[list[str]] = [[]]
    for word in text.strip().split(" "):
        if cut[-1][-1:] == ["."]:
            cut.append([])
        cut[-1].append(word)
    return [" ".join(words) for words in cut]


def _clause(words: list[str]) -> float | None:
    if any(_fits(words, statement) for statement in STATEMENTS):
        return 0.0
    match words:
        case ["it", copula, *rest] if copula in COPULAS:
            phrase = JUDGEMENT
        case ["the", aspect, copula, *rest] if aspect in ASPECTS and copula in COPULAS:
            phrase = JUDGEMENT
        case [person, "found", "it", *rest] if person in PERSONS:
            phrase = JUDGEMENT
        case [person, "found", "the", aspect, *rest] if person in PERSONS and aspect in ASPECTS:
            phrase = JUDGEMENT
        case [person, *rest, "it"] if person in PERSONS:
            phrase = FEELING
        case [person, *rest, "the", aspect] if person in PERSONS and aspect in ASPECTS:
            phrase = FEELING
        case _:
            return None
    return phrase.polarity(" ".join(rest))


def _fits(words: list[str], statement: Sequence[Sequence[str]]) -> bool:
    return len(words) == len(statement) and all(
        word in slot for word, slot in zip(words, statement, strict=True)
    )
