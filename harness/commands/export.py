"""`harness export`: a run's answers and verdicts in AlpacaEval's form, for other tools."""

from __future__ import annotations

import csv
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from harness.errors import DataError
from harness.files import check_writable
from harness.judge.exchange.annotations import export as exported
from harness.judge.exchange.annotations import folder_name, write
from harness.records import Completion, Verdict, read_jsonl
from harness.store.manifest import Manifest, read_manifest

GENERATE = "generate"
JUDGE = "harness.judge.contest:judge"


class _Found(NamedTuple):
    folder: Path
    manifest: Manifest


def export(args: Namespace) -> int:
    """Write the test completions of every cell, and what a judge said of them.

    Raises:
        DataError: this is no run, or its stages are not there.
    """
    run = Path(args.run)
    stages = list(_stages(run))
    judged = {f.manifest.inputs["completions"]: f for f in stages if f.manifest.call == JUDGE}
    written = [f for f in stages if _of_tests(f.manifest)]
    if not written:
        raise DataError(f"{run}: no finished completions of test prompts; run it to its end first")
    out = Path(args.out) if args.out else run / "outputs"
    check_writable(out)
    files = sum(_cell(out, each, judged.get(each.manifest.key)) for each in written)
    print(f"{files} files of {len(written)} cells: {out}")
    return 0


def _stages(run: Path) -> Iterator[_Found]:
    """The finished stages of a run, as its table of costs names them."""
    try:
        with (run / "costs.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except OSError as error:
        why = f"costs.csv cannot be read ({error.strerror})"
        raise DataError(f"{run} is no run folder: {why}; name one such as runs/mine") from error
    for row in rows:
        folder = run.parent / "store" / "stages" / row["stage"] / row["key"]
        if (manifest := read_manifest(folder, row["key"])) and manifest.status == "done":
            yield _Found(folder, manifest)


def _of_tests(manifest: Manifest) -> bool:
    return manifest.verb == GENERATE and manifest.settings.get("splits") == ["test"]


def _cell(out: Path, cell: _Found, judge: _Found | None) -> int:
    """Write one cell; returns the number of files."""
    name, _, board = cell.manifest.label.removeprefix("generate ").rpartition(", ")
    completions = read_jsonl(cell.folder / "completions.jsonl", Completion)
    verdicts = read_jsonl(judge.folder / "verdicts.jsonl", Verdict) if judge else []
    annotator = _annotator(judge.manifest) if judge else ""
    cells = exported(completions, verdicts, folder_name(name), board, annotator)
    return write(out / folder_name(board), *cells)


def _annotator(judge: Manifest) -> str:
    return str(judge.facts.get("model") or judge.facts["kind"])
