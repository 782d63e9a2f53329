"""Warm-start texts, prompts and people's pairs of real posts, in splits that share no post."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from harness.api import Corpus, DataError, Pair, Prompt, Sizes, keep_texts

from .post_rows import (  # noqa: TID251 (the same folder, in a checkout as in a wheel)
    Comparison,
    Post,
    load_comparisons,
    load_posts,
)

Split = Literal["train", "validation", "test"]


def make_corpus(
    data: str, comparisons: str | None, sizes: Sizes, rng: np.random.Generator
) -> Corpus:
    """Texts to learn from, and prompts; those of the test split are posts of the test split.

    Prompts for pairs are posts of the train split, or those that people compared summaries of: one
    prompt for each comparison, whose number is in its id. No post is in two splits, and no text to
    learn from has a post that is a prompt.

    Raises:
        DataError: the data cannot be read, or there are fewer posts than the budget asks for.
    """
    test = _usable(data, "test", ())
    train = _usable(data, "train", [post.body for post in test.posts])
    facts = {"rule": {"test": test.facts, "train": train.facts}, "revision": test.revision}
    posts = [train.posts[i] for i in rng.permutation(len(train.posts))]
    prompts = _prompts(test.posts, "test", sizes.test, rng)
    if comparisons is None:
        cut = sizes.validation
        prompts += _prompts(posts[:cut], "validation", cut)
        prompts += _prompts(posts[cut : cut + sizes.train], "train", sizes.train)
        asked = {post.body for post in posts[: cut + sizes.train]}
    else:
        compared = _compared(comparisons, {post.body for post in test.posts}, rng)
        prompts += compared.prompts(sizes)
        asked, facts["comparisons"] = set(compared.rows), compared.facts
    texts = [post.prompt + post.summary for post in posts if post.body not in asked]
    facts["characters"] = {
        "prompts": _sizes(prompt.text for prompt in prompts),
        "summaries": _sizes(post.summary for post in posts),
    }
    return Corpus(texts[: sizes.texts], prompts, facts)


def people_pairs(
    comparisons: str, prompts: Sequence[Prompt], rng: np.random.Generator
) -> list[Pair]:
    """The comparison behind each prompt, in a random order."""
    found, _ = load_comparisons(comparisons)
    pairs = []
    for prompt in prompts:
        comparison = found[int(prompt.prompt_id.rpartition("-")[2])]
        assert comparison.prompt == prompt.text, "the comparisons are those of the corpus"
        pairs.append(
            Pair(
                prompt.prompt_id, prompt.split, prompt.text, comparison.chosen, comparison.rejected
            )
        )
    return [pairs[i] for i in rng.permutation(len(pairs))]


class _Usable(NamedTuple):
    posts: list[Post]
    facts: dict[str, Any]
    revision: str


def _usable(data: str, split: str, held_out: Iterable[str]) -> _Usable:
    """Posts with a body and a summary, each body once; what is neither is counted as empty."""
    posts, rows = load_posts(data, split)
    bodies = [post.body if post.summary else "" for post in posts]
    kept = keep_texts(bodies, rows.place, held_out=held_out)
    return _Usable([posts[row] for row in kept.rows], kept.facts, rows.revision)


def _prompts(
    posts: Sequence[Post], split: Split, wanted: int, rng: np.random.Generator | None = None
) -> list[Prompt]:
    """As many prompts as are wanted: the first ones, or with a generator any."""
    if len(posts) < wanted:
        raise _too_few(split, len(posts), wanted, "posts")
    rows = range(wanted) if rng is None else rng.permutation(len(posts))[:wanted]
    return [
        Prompt(f"{split}-{i}", split, posts[row].prompt, posts[row].summary)
        for i, row in enumerate(rows)
    ]


class _Compared(NamedTuple):
    """Comparisons, and the rows of each body; bodies are in a random order."""

    comparisons: Sequence[Comparison]
    rows: dict[str, list[int]]
    facts: dict[str, Any]

    def prompts(self, sizes: Sizes) -> list[Prompt]:
        """One prompt for each comparison; what people preferred is its original.

        Raises:
            DataError: there are too few.
        """
        found: list[Prompt] = []
        bodies = iter(self.rows.values())
        wanted: tuple[tuple[Split, int], ...] = (
            ("validation", sizes.validation), ("train", sizes.train),
        )  # fmt: skip
        for split, count in wanted:
            mine: list[int] = []
            while len(mine) < count:
                more = next(bodies, None)
                if more is None:
                    raise _too_few(split, len(mine), count, "comparisons")
                mine += more
            for row in mine[:count]:
                one = self.comparisons[row]
                found.append(Prompt(f"{split}-{row}", split, one.prompt, one.chosen))
        return found


def _compared(source: str, held_out: Collection[str], rng: np.random.Generator) -> _Compared:
    comparisons, rows = load_comparisons(source)
    whole = ["\n".join(c) if all((c.body, c.chosen, c.rejected)) else "" for c in comparisons]
    kept = keep_texts(whole, rows.place)
    groups: dict[str, list[int]] = defaultdict(list)
    for row in kept.rows:
        groups[comparisons[row].body].append(row)
    free = [body for body in groups if body not in held_out]
    shuffled = {free[i]: groups[free[i]] for i in rng.permutation(len(free))}
    usable = sum(map(len, shuffled.values()))
    facts = {
        **kept.facts, "of posts of the test split": len(kept.rows) - usable, "usable": usable,
        "revision": rows.revision,
    }  # fmt: skip
    return _Compared(comparisons, shuffled, facts)


def _too_few(split: str, found: int, wanted: int, what: str) -> DataError:
    key = {"train": "pairs", "validation": "validation_pairs", "test": "test_prompts"}[split]
    return DataError(
        f"only {found} of {wanted} {split} prompts could be made from the {what} that are left: "
        f"lower budget.{key}, or give more {what}"
    )


def _sizes(texts: Iterable[str]) -> dict[str, float]:
    lengths = [len(text) for text in texts]
    return {"mean": float(np.mean(lengths)), "longest": max(lengths)} if lengths else {}
