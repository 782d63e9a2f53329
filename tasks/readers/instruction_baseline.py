"""Real instructions with a baseline's answers, in AlpacaEval's formats."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from harness.api import DataError, Rows, load_rows

from .instruction_rows import (  # noqa: TID251 (the same folder, in a checkout as in a wheel)
    SHOWN,
    Source,
)

NAMED = 3
"""How many dropped instructions the facts name."""


class Reference(NamedTuple):
    """An instruction and the baseline's answer to it."""

    instruction: str
    output: str


@dataclass(frozen=True)
class References:
    """Instructions with the answers of one baseline.

    Attributes:
        rows: those that it answers.
        held_out: all of them, so that nobody's training depends on who the baseline is.
        generator: who the baseline is.
    """

    rows: Sequence[Reference]
    held_out: Sequence[str]
    generator: str
    facts: Mapping[str, Any]


def read_references(source: Source, baseline: str | None, generator: str | None) -> References:
    """The instructions of a source that the baseline answers, each with its answer.

    An empty answer can be compared with nothing: its instruction is dropped, and counted.

    Args:
        source: of the instructions, in column `instruction`; the baseline's answers are in
            `reference_outputs`, by generator, or in `output` with the `generator` beside it.
        baseline: a file of other answers in the form of AlpacaEval's `model_outputs.json`. It is
            joined by `instruction`, or by the `idx` of both where it has only that.
        generator: whose answers; None: there is only one.

    Raises:
        DataError: an instruction has no answer, two, or all answers are empty; the baseline answers
            another one; or there are several generators, and none or a wrong one is named.
    """
    outputs = _table(
        Source(baseline or source.place, source.split),
        *([] if baseline else [("instruction", "reference_outputs")]),
        ("instruction", "output", "generator"),
        *([("idx", "output", "generator")] if baseline else []),
    )
    key = next(iter(outputs.columns))
    who, answers = _of_one(outputs, _by_generator(outputs, key), generator)
    facts = {"baseline": who, "revision": outputs.revision}
    if baseline is None:
        return _references(outputs, [Reference(str(k), v) for k, v in answers.items()], who, facts)
    asked = load_rows(source.place, source.split, columns=list(dict.fromkeys([key, "instruction"])))
    texts = dict(zip(asked.columns[key], asked.texts("instruction"), strict=True))
    _same_instructions(baseline, source.place, answers, texts)
    facts["instructions_revision"] = asked.revision
    found = [Reference(text, answers[k]) for k, text in texts.items()]
    return _references(outputs, found, who, facts)


def _references(
    outputs: Rows, found: Sequence[Reference], who: str, facts: Mapping[str, Any]
) -> References:
    rows = [reference for reference in found if reference.output.strip()]
    if not rows:
        raise DataError(f"{outputs.source}: all {len(found)} answers of '{who}' are empty")
    empty = [each.instruction[:SHOWN] for each in found if not each.output.strip()]
    told = {
        **facts, "instructions": len(rows), "dropped": {"empty answer of the baseline": len(empty)},
        "first dropped": empty[:NAMED],
    }  # fmt: skip
    return References(rows, [each.instruction for each in found], who, told)


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
        if not isinstance(output, str):
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
