"""Real posts with their authors' summaries, and people's comparisons of two summaries.

Posts come in one of the forms of `POSTS`, comparisons in one of `COMPARISONS`; all are brought
into the field's usual form:

    SUBREDDIT: r/relationships
    <blank line>
    TITLE: My sister sold my bike
    <blank line>
    POST: I am 25 and ...
    <blank line>
    TL;DR:

A completion is a space and the summary. Two posts are the same if their bodies are, whatever their
titles; blanks and line breaks count for nothing there.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from harness.api import DataError, Rows, load_rows

MARKER = "TL;DR:"
POSTS = (
    ("subreddit", "title", "post", "summary"),
    ("prompt", "completion"),
    ("prompt", "label"),
)
COMPARISONS = (("info", "summaries", "choice"), ("prompt", "chosen", "rejected"))

_FORM = re.compile(
    rf"SUBREDDIT:\s*(?:r/)?(?P<subreddit>\S+)\s+TITLE:\s*(?P<title>.*?)\s+POST:\s*(?P<post>.*?)"
    rf"\s*(?:{MARKER})?\s*",
    re.DOTALL,
)


class Post(NamedTuple):
    """A post: its body, by which it is known, the prompt made of it and its author's summary."""

    body: str
    prompt: str
    summary: str


class Comparison(NamedTuple):
    """Two summaries of a post, and which of them people preferred."""

    body: str
    prompt: str
    chosen: str
    rejected: str


def load_posts(source: str, split: str) -> tuple[list[Post], Rows]:
    """All posts of a split, empty ones included; and where they lie.

    Raises:
        DataError: the data cannot be read, or are in none of the forms of `POSTS`.
    """
    rows, form = _load(source, split, POSTS)
    columns = [rows.texts(name, empty=True) for name in form]
    if "post" not in form:
        return [Post(*_prompt(p), _answer(s)) for p, s in zip(*columns, strict=True)], rows
    return [
        Post(_body(post), rendered(subreddit, title, post), _answer(summary))
        for subreddit, title, post, summary in zip(*columns, strict=True)
    ], rows


def load_comparisons(source: str) -> tuple[list[Comparison], Rows]:
    """All comparisons of the split `train`, those without a Reddit post with an empty body.

    Raises:
        DataError: the data cannot be read, or are in none of the forms of `COMPARISONS`; names the
            row.
    """
    rows, form = _load(source, "train", COMPARISONS)
    if "info" in form:
        columns = [rows.columns[name] for name in form]
        return [_of_record(rows, i, *row) for i, row in enumerate(zip(*columns, strict=True))], rows
    texts = [rows.texts(name, empty=True) for name in form]
    return [
        Comparison(*_prompt(prompt), _answer(chosen), _answer(rejected))
        for prompt, chosen, rejected in zip(*texts, strict=True)
    ], rows


def rendered(subreddit: str, title: str, post: str) -> str:
    """The prompt of a post."""
    forum = subreddit.strip().removeprefix("r/")
    return f"SUBREDDIT: r/{forum}\n\nTITLE: {title.strip()}\n\nPOST: {post.strip()}\n\n{MARKER}"


def _load(
    source: str, split: str, forms: Sequence[tuple[str, ...]]
) -> tuple[Rows, tuple[str, ...]]:
    """The rows in the first form that they have."""
    reasons = []
    for form in forms:
        try:
            return load_rows(source, split, columns=form), form
        except DataError as error:
            reasons.append(str(error))
    known = ", or ".join("+".join(form) for form in forms)
    raise DataError(f"{reasons[0]} (columns that are understood: {known})")


def _prompt(text: str) -> tuple[str, str]:
    """Body and prompt of a post that is a prompt already."""
    found = _FORM.fullmatch(text.strip())
    if found:
        return _body(found["post"]), rendered(found["subreddit"], found["title"], found["post"])
    post = text.strip().removesuffix(MARKER).rstrip()
    return _body(post), f"{post}\n\n{MARKER}"


def _answer(text: str) -> str:
    """A summary as a completion; empty where there is none."""
    stripped = text.strip().removeprefix(MARKER).strip()
    return f" {stripped}" if stripped else ""


def _body(post: str) -> str:
    return " ".join(post.split())


def _of_record(rows: Rows, i: int, info: Any, summaries: Any, choice: Any) -> Comparison:
    """A row of the form info, summaries, choice."""
    try:
        texts = [_answer(summary["text"]) for summary in summaries]
        post, title, subreddit = (info.get(name) or "" for name in ("post", "title", "subreddit"))
        chosen, rejected = (texts[place] for place in {0: (0, 1), 1: (1, 0)}[choice])
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise DataError(
            f"{rows.source}: {rows.place(i)}: no comparison of two summaries ({error!r}); it needs "
            "info.post, info.title, info.subreddit, summaries[0].text, summaries[1].text and a "
            "choice that is 0 or 1"
        ) from error
    return Comparison(_body(post), rendered(subreddit, title, post), chosen, rejected)
