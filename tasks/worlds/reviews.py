"""The world of the sentiment task: short film reviews whose true reward is known exactly.

The reward of a text is the mean of the polarity p of its sentences, in [-3, 3]; `review_grammar`
has the grammar and p. A sentence that does not parse, a last one that was cut off and one that the
text has said before have p = 0 and still count in the mean, so that neither garbage nor length nor
repetition pays.

A clause is worded by chance: every wording has a weight w, and in a mood m its probability is in
proportion to w·exp(1.4·m·p). The mood of a text is its tone, -1 to 1, plus what varies between
people who write in one tone, uniform in [-0.6, 0.6].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, product
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from .review_grammar import (  # noqa: TID251 (the same folder, in a checkout as in a wheel)
    ASPECTS,
    COPULAS,
    FEELING,
    JUDGEMENT,
    PERSONS,
    SENTENCES,
    STATEMENTS,
    Phrase,
    polarity,
    sentences,
)

__all__ = ["VOCABULARY", "beginning", "parses", "polarity", "reward", "sample"]

Odds = npt.NDArray[np.float64]
T = TypeVar("T")

_TILT = 1.4
_VARIETY = 0.6
_CONTRASTS = 0.16
_LENGTHS = (2, 3, 3, 4)
SHORTEST = 12
"""Words of the shortest review."""

_WORDS = range(SHORTEST, 33)


def reward(text: str) -> float:
    """How much the text praises the film, -3 to 3; 0 where it says nothing."""
    said = sentences(text)
    return sum(polarity(sentence) or 0.0 for sentence in dict.fromkeys(said)) / len(said)


def parses(text: str) -> bool:
    """Whether the whole text is a review."""
    said = sentences(text)
    return len(said) in SENTENCES and all(polarity(sentence) is not None for sentence in said)


def beginning(text: str, words: int) -> tuple[str, str]:
    """The first words of a text, to prompt with, and what follows behind the next space.

    Raises:
        ValueError: one of the two would be empty.
    """
    split = text.split(" ")
    if not 0 < words < len(split):
        raise ValueError(f"a text of {len(split)} words cannot be split behind word {words}")
    return " ".join(split[:words]), " ".join(split[words:])


def sample(rng: np.random.Generator, tone: float = 0.0) -> str:
    """A review of 12 to 32 words: bad at tone -1, neutral or mixed at 0, good at 1.

    Raises:
        ValueError: the tone is not in [-1, 1].
    """
    if not -1 <= tone <= 1:
        raise ValueError(f"a tone is between -1 and 1, not {tone}")
    mood = tone + _VARIETY * (2 * rng.random() - 1)
    odds, opposite = _odds(mood), _odds(-mood)
    while True:
        said = [_sentence(rng, odds, opposite) for _ in range(_pick(rng, _LENGTHS))]
        text = " ".join(said)
        if len(set(said)) == len(said) and text.count(" ") + 1 in _WORDS:
            return text


class _Wording(NamedTuple):
    """What a clause can say before somebody says it of something.

    Attributes:
        phrase: judgement or feeling; None is a statement, whose words are drawn later.
    """

    phrase: Phrase | None
    words: str
    weight: float


def _wordings(phrase: Phrase, weight: float) -> Iterator[_Wording]:
    """All wordings of a phrase: first a manner of speaking by its share, then its words alike."""
    denials = phrase.denials.items()
    manners = (
        (0.40, list(phrase.heads)),
        (0.34, [f"{degree} {head}" for degree, head in product(phrase.degrees, phrase.heads)]),
        (0.18, [f"{no} {head}" for no, denial in denials for head in denial.heads]),
        (
            0.08,
            [
                f"{no} {degree} {head}"
                for no, denial in denials
                for degree, head in product(denial.intensifiers, denial.heads)
            ],
        ),
    )
    for share, manner in manners:
        for words in manner:
            yield _Wording(phrase, words, weight * share / len(manner))


_WORDINGS = (
    _Wording(None, "", 0.10),
    *_wordings(JUDGEMENT, 0.65),
    *_wordings(FEELING, 0.25),
)
_WEIGHTS = np.array([wording.weight for wording in _WORDINGS])
_POLARITIES = np.array(
    [phrase.polarity(words) if phrase else 0.0 for phrase, words, _ in _WORDINGS], dtype=np.float64
)

VOCABULARY: tuple[str, ...] = tuple(
    sorted(
        {"the", "it", "found", ",", "but", "."}.union(
            ASPECTS, COPULAS, PERSONS, *chain.from_iterable(STATEMENTS)
        ).union(*(wording.words.split() for wording in _WORDINGS))
    )
)


def _odds(mood: float) -> Odds:
    """Cumulative probabilities of the wordings."""
    cumulative = np.cumsum(_WEIGHTS * np.exp(_TILT * mood * _POLARITIES))
    odds: Odds = cumulative / cumulative[-1]
    return odds


def _sentence(rng: np.random.Generator, odds: Odds, opposite: Odds) -> str:
    if rng.random() >= _CONTRASTS:
        return f"{_clause(rng, _drawn(rng, odds))} ."
    while True:
        conceded, meant = _drawn(rng, opposite), _drawn(rng, odds)
        if _POLARITIES[conceded] * _POLARITIES[meant] < 0:
            return f"{_clause(rng, conceded)} , but {_clause(rng, meant)} ."


def _drawn(rng: np.random.Generator, odds: Odds) -> int:
    return int(np.searchsorted(odds, rng.random(), side="right"))


def _clause(rng: np.random.Generator, wording: int) -> str:
    phrase, words, _ = _WORDINGS[wording]
    if phrase is None:
        return " ".join(_pick(rng, slot) for slot in _pick(rng, STATEMENTS))
    person = _pick(rng, PERSONS)
    thing = "it" if rng.random() < 0.25 else f"the {_pick(rng, ASPECTS)}"
    if phrase is FEELING:
        return f"{person} {words} {thing}"
    if rng.random() < 0.2:
        return f"{person} found {thing} {words}"
    return f"{thing} {_pick(rng, COPULAS)} {words}"


def _pick(rng: np.random.Generator, options: Sequence[T]) -> T:
    return options[int(rng.integers(len(options)))]
