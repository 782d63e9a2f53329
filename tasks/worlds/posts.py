"""The world of the summarization task: short posts and summaries whose true reward is known.

A summary is cut at its commas into phrases. Each of them is one of three:

    covered     it states a fact that the post tells, for the first time
    invented    it states a fact that the post does not tell, for the first time
    void        anything else: garbage, what was said before, what was cut off

    reward = covered - invented - void - words / 10

with every word and every mark counted as a word. A phrase has two to four words with its comma,
so that every fact of the post is worth its words and nothing else is: garbage, repetition, a copy
of the post and words for their own sake only cost. To say nothing at all is one void phrase.

Writers differ in how often they cover a fact of the post and how often they invent one. `HASTY`
writes what a policy learns from, `CAREFUL` the reference summaries: better, and not the best.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from harness.api import Corpus, Prompt, Reading, Sizes, Versus

from .post_grammar import (  # noqa: TID251 (the same folder, in a checkout as in a wheel)
    FILLERS,
    MARKER,
    ORDER,
    PHRASES,
    SLOTS,
    STATED,
    VOCABULARY,
    Fact,
    facts,
    parses,
    phrases,
)

__all__ = [
    "CAREFUL",
    "HASTY",
    "VOCABULARY",
    "Truth",
    "Writer",
    "parses",
    "prompt",
    "reward",
    "truth",
]

WORD_COST = 0.1
_FACTS = (4, 5)
_FILLERS = (1, 2)


class Truth(NamedTuple):
    """What is true of a summary of a post.

    Attributes:
        told: facts that the post tells.
        covered: of these, how many the summary states.
        invented: facts that it states and the post does not tell.
        void: phrases that state nothing, or what was said before.
        words: of the summary, marks included.
    """

    told: int
    covered: int
    invented: int
    void: int
    words: int

    @property
    def reward(self) -> float:
        """A fact covered is worth 1; a fact invented or a void phrase costs 1, a word 1/10."""
        return self.covered - self.invented - self.void - WORD_COST * self.words

    @property
    def coverage(self) -> float:
        """Share of the post's facts that the summary states, 0 to 1; 0 where there are none."""
        return self.covered / self.told if self.told else 0.0


def reward(prompt: str, summary: str) -> float:
    """How good any text is as a summary of any other; at most 0 where it says nothing."""
    return truth(prompt, summary).reward


def truth(prompt: str, summary: str) -> Truth:
    """What is true of any text as a summary of any other."""
    told = facts(prompt)
    said = phrases(summary)
    stated = {STATED[phrase] for phrase in said if phrase in STATED}
    return Truth(
        len(told), len(stated & told), len(stated - told), len(said) - len(stated),
        len(summary.split()),
    )  # fmt: skip


def prompt(rng: np.random.Generator) -> str:
    """A post that tells four or five facts among one or two fillers, and the marker behind it."""
    slots = rng.choice(len(SLOTS), size=int(rng.choice(_FACTS)), replace=False)
    fillers = rng.choice(len(FILLERS), size=int(rng.choice(_FILLERS)), replace=False)
    said = [FILLERS[i] for i in fillers]
    for slot in (SLOTS[i] for i in slots):
        telling = slot.tellings[int(rng.integers(len(slot.tellings)))]
        said.append(telling.replace("_", slot.values[int(rng.integers(len(slot.values)))]))
    return "".join(f"{said[i]} . " for i in rng.permutation(len(said))) + MARKER


class Writer(NamedTuple):
    """Somebody who writes summaries.

    Attributes:
        covers: the probability that a fact of the post is stated; at least one is.
        invents: the probability that what would have stated it states another, made-up one.
    """

    covers: float
    invents: float

    def write(self, prompt: str, rng: np.random.Generator) -> str:
        """A summary of a post, without the space before it."""
        told = sorted(facts(prompt), key=_place)
        stated: list[Fact] = []
        while not stated:
            stated = [fact for fact in told if rng.random() < self.covers]
        for at in range(len(stated)):
            if rng.random() < self.invents:
                stated[at] = _invented(told, stated, rng)
        return " , ".join(PHRASES[fact] for fact in sorted(stated, key=_place)) + " ."


HASTY = Writer(covers=0.36, invents=0.1)
CAREFUL = Writer(covers=0.65, invents=0.05)


def corpus(sizes: Sizes, rng: np.random.Generator) -> Corpus:
    """Hasty summaries to learn from; prompts whose reference summaries are careful ones."""
    counts = {"train": sizes.train, "validation": sizes.validation, "test": sizes.test}
    names = [(split, i) for split, count in counts.items() for i in range(count)]
    drawn = _prompts(sizes.texts + len(names), rng)
    texts = [f"{post} {HASTY.write(post, rng)}" for post in drawn[: sizes.texts]]
    prompts = [
        Prompt(f"{split}-{i}", split, post, f" {CAREFUL.write(post, rng)}")  # type: ignore[arg-type]
        for (split, i), post in zip(names, drawn[sizes.texts :], strict=True)
    ]
    return Corpus(texts, prompts)


def _prompts(count: int, rng: np.random.Generator) -> list[str]:
    """Different posts; there are more than any budget can ask for."""
    found: dict[str, None] = {}
    while len(found) < count:
        found[prompt(rng)] = None
    return list(found)


def judge(contests: Sequence[Versus]) -> list[Reading]:
    """P(the first is better) = sigmoid of the difference of the true rewards."""
    gaps = [reward(c.prompt, c.first) - reward(c.prompt, c.second) for c in contests]
    # As a tangent: both orders add up to 1, and no gap is too large.
    return [Reading((1 + math.tanh(gap / 2)) / 2) for gap in gaps]


def _place(fact: Fact) -> int:
    return ORDER[fact[0]]


def _invented(told: Sequence[Fact], stated: Sequence[Fact], rng: np.random.Generator) -> Fact:
    """A fact that the post does not tell, of a slot that the summary does not speak of yet."""
    free = [fact for fact in PHRASES if fact not in told and fact[0] not in dict(stated)]
    return free[int(rng.integers(len(free)))]
