"""Completions in AlpacaEval's form: what a model answered to each instruction.

A file is a JSON list or JSON lines of {instruction, output, generator, dataset}. Two relatives are
read as well: rows with an `idx` in place of the instruction, which an evaluation set resolves, and
evaluation sets that hold outputs of several generators under `reference_outputs`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import DataError, RequestError, unknown
from harness.judge.exchange.json_rows import Row, read_rows, shown

NAMED = 3
"""How many instructions an error names before it counts the others."""


@dataclass(frozen=True, slots=True)
class Output:
    """One answer of one generator, in the words of the exchange format."""

    instruction: str
    output: str
    generator: str
    dataset: str = ""


@dataclass(frozen=True)
class Outputs:
    """All answers of one generator.

    Attributes:
        source: as it was given.
    """

    source: str
    generator: str
    rows: tuple[Output, ...]


class Joined(NamedTuple):
    """The answers of a model and of a baseline to one instruction."""

    answer: Output
    baseline: Output


Instructions = Mapping[Any, tuple[str, str]]
"""Instruction and data set by `idx`."""


def read_outputs(source: str, instructions: Instructions | None = None) -> Outputs:
    """The answers of one generator.

    Args:
        source: a file; `FILE#GENERATOR` where a file holds several generators.
        instructions: of rows that have an `idx` only; without it the file `eval_set.*` beside it.

    Raises:
        DataError: the file cannot be read, or a row is not an answer; names it.
        RequestError: the file holds several generators, or none of that name.
    """
    path, name = _named(source)
    known = instructions
    found = []
    for row in read_rows(path):
        if "instruction" not in row.values and known is None:
            known = _beside(path, row)
        found += list(_outputs(row, path, known or {}))
    generators = sorted({output.generator for output in found})
    if name is None and len(generators) > 1:
        names = list(map(shown, generators))
        listed = ", ".join(names)
        raise RequestError(f"{source} holds {listed}: name one, as in '{source}#{names[0]}'")
    if name is not None and name not in generators:
        raise unknown(f"generator in {path}", name, map(shown, generators))
    name = name or generators[0]
    return Outputs(source, name, tuple(o for o in found if o.generator == name))


def read_instructions(path: Path) -> Instructions:
    """Instruction and data set by `idx`, of an evaluation set.

    Raises:
        DataError: the file cannot be read, or a row has no instruction.
    """
    return {
        row.values.get("idx", i): (row.text("instruction"), str(row.values.get("dataset", "")))
        for i, row in enumerate(read_rows(path))
    }


def join(outputs: Outputs, baseline: Outputs, *, common: bool = False) -> list[Joined]:
    """Both answers to every instruction, in the order of the outputs.

    Args:
        outputs: of the model.
        baseline: of what it is compared with.
        common: leave out instructions that only one of them answered.

    Raises:
        DataError: an instruction is answered twice or, unless `common`, on one side only; or no
            instruction is common.
    """
    for side in (outputs, baseline):
        counts = Counter(row.instruction for row in side.rows)
        if twice := [text for text, count in counts.items() if count > 1]:
            raise DataError(f"{side.source}: answered more than once: {_some(twice)}; keep one")
    theirs = {row.instruction: row for row in baseline.rows}
    mine = {row.instruction for row in outputs.rows}
    if not common:
        _complete(outputs.source, baseline.source, [t for t in theirs if t not in mine])
        _complete(baseline.source, outputs.source, [r.instruction for r in outputs.rows
                                                    if r.instruction not in theirs])  # fmt: skip
    found = [Joined(r, theirs[r.instruction]) for r in outputs.rows if r.instruction in theirs]
    if not found:
        raise DataError(f"{outputs.source} and {baseline.source} have no instruction in common")
    return found


def as_json(outputs: Sequence[Output]) -> list[dict[str, str]]:
    """Rows of a `model_outputs.json`."""
    return [asdict(output) for output in outputs]


def _complete(source: str, other: str, missing: Sequence[str]) -> None:
    if missing:
        raise DataError(
            f"{source} has no answer to what {other} answers: {_some(missing)}; give both the same "
            "prompts, or say --common to judge only what both have"
        )


def _some(texts: Sequence[str]) -> str:
    named = ", ".join(f"{text!r:.60}" for text in texts[:NAMED])
    return named + (f" and {len(texts) - NAMED} more" if len(texts) > NAMED else "")


def _named(source: str) -> tuple[Path, str | None]:
    path, hash_sign, name = source.rpartition("#")
    if hash_sign and not Path(source).expanduser().exists():
        return Path(path).expanduser(), name
    return Path(source).expanduser(), None


def _beside(path: Path, row: Row) -> Instructions:
    """The instructions of the evaluation set in the same folder."""
    if "idx" in row.values:
        for found in sorted(path.parent.glob("eval_set.json*")):
            return read_instructions(found)
    raise DataError(
        f"{row.place}: no 'instruction', and no file eval_set.json[l][.gz] stands beside it that "
        "could say which one it answers; name one with --instructions"
    )


def _outputs(row: Row, path: Path, known: Instructions) -> Iterator[Output]:
    instruction, dataset = _instruction(row, known)
    several = row.values.get("reference_outputs")
    if isinstance(several, dict):
        for generator, text in several.items():
            value = Row({"output": text}, f"{row.place}, {shown(generator)}").text("output")
            yield Output(instruction, value, generator, dataset)
        return
    stem = path.name.partition(".")[0]
    yield Output(instruction, row.text("output"), str(row.values.get("generator") or stem), dataset)


def _instruction(row: Row, known: Instructions) -> tuple[str, str]:
    if "instruction" in row.values:
        return row.text("instruction"), str(row.values.get("dataset") or "")
    index = row.values.get("idx")
    if not isinstance(index, int | str) or index not in known:
        raise DataError(f"{row.place}: no 'instruction', and idx {index!r} is in no evaluation set")
    return known[index]
