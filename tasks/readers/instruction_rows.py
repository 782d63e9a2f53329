"""Real preference pairs, and instructions with a baseline's answers, in the field's formats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.api import DataError, Rows, keep_texts, load_rows

SHOWN = 80
"""Characters of an instruction that an error shows."""


class Source(NamedTuple):
    """A folder, file or hub id, and the split of it."""

    place: str
    split: str


class Preference(NamedTuple):
    """A prompt and two answers, as people or a stronger model labelled them."""

    prompt: str
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Preferences:
    """The pairs that can be used, one for each prompt, and what became of the others."""

    pairs: Sequence[Preference]
    facts: Mapping[str, Any]


class Reference(NamedTuple):
    """An instruction and the baseline's answer to it."""

    instruction: str
    output: str


@dataclass(frozen=True)
class References:
    """Instructions with the answers of one baseline.

    Attributes:
        generator: who the baseline is.
    """

    rows: Sequence[Reference]
    generator: str
    facts: Mapping[str, Any]


def read_preferences(source: Source, held_out: Sequence[str] = ()) -> Preferences:
    """Pairs of one turn with two different answers, the first of each prompt.

    Columns are `prompt`, `chosen` and `rejected`. An answer is a text, or a list of messages that
    ends with the assistant's and has at most the user's prompt before it.

    Args:
        source: of the pairs.
        held_out: prompts that must not be among them.

    Raises:
        DataError: a column is missing, holds something else, or no pair is left.
    """
    rows = load_rows(source.place, source.split, columns=["prompt", "chosen", "rejected"])
    prompts = rows.texts("prompt", empty=True)
    found: list[tuple[int, Preference]] = []
    dropped = Counter({"several turns": 0, "without two different answers": 0})
    for i, prompt in enumerate(prompts):
        answers = [_answer(rows, i, side, prompt) for side in ("chosen", "rejected")]
        chosen, rejected = answers
        if chosen is None or rejected is None:
            dropped["several turns"] += 1
        elif not chosen.strip() or not rejected.strip() or chosen == rejected:
            dropped["without two different answers"] += 1
        else:
            found.append((i, Preference(prompt, chosen, rejected)))
    kept = keep_texts(
        [pair.prompt for _, pair in found], lambda i: rows.place(found[i][0]), held_out=held_out
    )
    facts = {**kept.facts, "dropped": {**dropped, **kept.dropped}, "revision": rows.revision}
    return Preferences([found[i][1] for i in kept.rows], facts)


def _answer(rows: Rows, i: int, side: str, prompt: str) -> str | None:
    """The text of an answer; None where it belongs to a longer conversation."""
    value = rows.columns[side][i]
    if value is None or isinstance(value, str):
        return value or ""
    try:
        *before, last = [(message["role"], message["content"]) for message in value]
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(
            f"{rows.source}: {rows.place(i)}: '{side}' is neither a text nor a list of messages "
            f"with role and content: {value!r:.{SHOWN}}"
        ) from error
    if before not in ([], [("user", prompt)]) or last[0] != "assistant":
        return None
    return str(last[1] or "")


def read_references(source: Source, baseline: str | None, generator: str | None) -> References:
    """All instructions of a source, each with the baseline's answer.

    Args:
        source: of the instructions, in column `instruction`; the baseline's answers are in
            `reference_outputs`, by generator, or in `output` with the `generator` beside it.
        baseline: a file of other answers in the form of AlpacaEval's `model_outputs.json`. It is
            joined by `instruction`, or by the `idx` of both where it has only that.
        generator: whose answers; None: there is only one.

    Raises:
        DataError: an instruction has no answer, two, or an empty one; the baseline answers another
            one; or there are several generators, and none or a wrong one is named.
    """
    outputs = _table(
        Source(baseline or source.place, source.split),
        *([] if baseline else [("instruction", "reference_outputs")]),
        ("instruction", "output", "generator"),
        *([("idx", "output", "generator")] if baseline else []),
    )
    key = next(iter(outputs.columns))
    who, answers = _of_one(outputs, _by_generator(outputs, key), generator)
    facts = {"instructions": len(answers), "baseline": who, "revision": outputs.revision}
    if baseline is None:
        return References([Reference(str(k), v) for k, v in answers.items()], who, facts)
    asked = load_rows(source.place, source.split, columns=list(dict.fromkeys([key, "instruction"])))
    texts = dict(zip(asked.columns[key], asked.texts("instruction"), strict=True))
    _same_instructions(baseline, source.place, answers, texts)
    facts["instructions_revision"] = asked.revision
    return References([Reference(text, answers[k]) for k, text in texts.items()], who, facts)


def _table(source: Source, *forms: tuple[str, ...]) -> Rows:
    """The rows in the first form whose columns are all there.

    Raises:
        DataError: they are in none; the error of the first form.
    """
    problems = []
    for columns in forms:
        try:
            return load_rows(source.place, source.split, columns=columns)
        except DataError as error:
            problems.append(error)
    raise problems[0]


def _by_generator(rows: Rows, key: str) -> list[tuple[str, Hashable, Any]]:
    """Generator, instruction and answer of everything that is there."""
    keys = rows.texts(key) if key == "instruction" else rows.columns[key]
    if "output" in rows.columns:
        return list(zip(rows.texts("generator"), keys, rows.columns["output"], strict=True))
    return [
        (generator, instruction, output)
        for instruction, outputs in zip(keys, rows.columns["reference_outputs"], strict=True)
        for generator, output in dict(outputs or {}).items()
    ]


def _of_one(
    rows: Rows, answers: Sequence[tuple[str, Hashable, Any]], generator: str | None
) -> tuple[str, dict[Hashable, str]]:
    """The one baseline, and its answer to each instruction."""
    known = sorted({who for who, _, _ in answers})
    if generator not in known and (generator is not None or len(known) != 1):
        raise DataError(
            f"{rows.source}: answers of {', '.join(known) or 'nobody'}"
            + (f", not of '{generator}'" if generator else "")
            + ": name one of them as alpacaeval.generator"
        )
    chosen = generator or known[0]
    found: dict[Hashable, str] = {}
    for who, key, output in answers:
        if who != chosen:
            continue
        if key in found:
            raise DataError(f"{rows.source}: '{chosen}' answers twice: {key!r:.{SHOWN}}")
        if not isinstance(output, str) or not output.strip():
            raise DataError(f"{rows.source}: '{chosen}' has no answer to {key!r:.{SHOWN}}")
        found[key] = output
    return chosen, found


def _same_instructions(
    baseline: str, place: str, answers: Mapping[Hashable, str], texts: Mapping[Hashable, str]
) -> None:
    missing = [text for key, text in texts.items() if key not in answers]
    foreign = [key for key in answers if key not in texts]
    for what, wrong in (("has no answer to", missing), ("answers what is not in", foreign)):
        if wrong:
            raise DataError(
                f"{baseline}: {what} {len(wrong)} instructions of {place}, the first: "
                f"{wrong[0]!r:.{SHOWN}}; give answers to the same instructions"
            )
