"""Verdicts and completions in AlpacaEval's exchange format.

    <out>/<generator>/model_outputs.json
    <out>/<generator>/<annotator>/annotations.json

An annotation's `preference` is 1 where output_1, the baseline's, is better and 2 where output_2 is;
it is the mean of both orders, which stand beside it, and null where an order could not be read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from harness.errors import DataError
from harness.files import replacing
from harness.judge.exchange.outputs import Output, as_json
from harness.records import Completion, Verdict

Rows = list[dict[str, Any]]


def export(
    completions: Sequence[Completion],
    verdicts: Sequence[Verdict],
    generator: str,
    dataset: str,
    annotator: str = "",
) -> tuple[list[Output], Rows]:
    """What a cell answered, and what its judge said of it.

    Args:
        completions: of the cell.
        verdicts: on these completions, in order; none where the task has no judge.
        generator: name of the cell; where a prompt has several answers, their temperature and
            sample are added to it, since the format has one answer per generator and instruction.
        dataset: name of the board.
        annotator: name of the judge.

    Raises:
        DataError: the verdicts are not about these completions.
    """
    several = {
        name: len({getattr(c, name) for c in completions}) > 1 for name in ("temperature", "sample")
    }
    outputs = [
        Output(
            c.prompt, c.text,
            generator + (f"@{c.temperature:g}" if several["temperature"] else "")
            + (f"-sample{c.sample}" if several["sample"] else ""), dataset,
        )
        for c in completions
    ]  # fmt: skip
    if not verdicts:
        return outputs, []
    if [_id(c) for c in completions] != [_id(v) for v in verdicts]:
        raise DataError("the verdicts are not about these completions: judge them again")
    rows = [
        annotation(
            output, Output(output.instruction, v.baseline, "baseline", dataset), v, annotator
        )
        for output, v in zip(outputs, verdicts, strict=True)
    ]
    return outputs, rows


def annotation(
    answer: Output, baseline: Output, verdict: Verdict, annotator: str, said: Any = None
) -> dict[str, Any]:
    """One row of an `annotations.json`.

    Args:
        answer: of the model.
        baseline: to the same instruction.
        verdict: on both.
        annotator: name of the judge.
        said: the judge's own words in each order, where they are known.
    """
    return {
        "instruction": answer.instruction, "dataset": answer.dataset or baseline.dataset,
        "output_1": baseline.output, "generator_1": baseline.generator,
        "output_2": answer.output, "generator_2": answer.generator,
        "annotator": annotator, "preference": _coded(verdict.preference),
        "preference_output_1_first": _coded(verdict.shown_second),
        "preference_output_2_first": _coded(verdict.shown_first), "raw_completion": said,
    }  # fmt: skip


def write(folder: Path, outputs: Sequence[Output], annotations: Sequence[Mapping[str, Any]]) -> int:
    """Write one folder for each generator, and in it one for each annotator.

    Returns:
        How many files were written.
    """
    count = 0
    for generator, mine in _by(outputs, lambda output: output.generator):
        write_json(folder / folder_name(generator) / "model_outputs.json", as_json(mine))
        count += 1
    for (generator, annotator), rows in _by(
        annotations, lambda row: (row["generator_2"], row["annotator"])
    ):
        place = folder / folder_name(generator) / folder_name(annotator or "judge")
        write_json(place / "annotations.json", rows)
        count += 1
    return count


def write_json(path: Path, content: Any) -> None:
    """Write a file that others may read at any time."""
    with replacing(path) as aside:
        text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        # A lone surrogate has no encoding; as an escape it is read back as it was.
        aside.write_text(text, encoding="utf-8", errors="backslashreplace")


def folder_name(text: str) -> str:
    """A name that is one harmless path component, and no hidden one, on every system."""
    return re.sub(r"[^\w.=@+-]+", "-", text, flags=re.ASCII).strip("-.") or "unnamed"


def _by(items: Iterable[Any], key: Any) -> Iterable[tuple[Any, list[Any]]]:
    return ((name, list(group)) for name, group in groupby(sorted(items, key=key), key))


def _coded(preference: float | None) -> float | None:
    return None if preference is None else 1.0 + preference


def _id(record: Completion | Verdict) -> tuple[str, int, float]:
    return record.prompt_id, record.sample, record.temperature
