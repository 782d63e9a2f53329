"""`scores.parquet`: the one flat table that every board is a pure function of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from harness.contracts.task import Metric
from harness.errors import DataError
from harness.files import replacing

SCHEMA_VERSION = 1
COLUMNS = ("task", "metric", "method", "settings", "seed", "prompt_id", "value", "unit")
Status = Literal["done", "unreliable", "diverged", "failed"]


@dataclass(frozen=True)
class TaskHeader:
    """A board of its own: its metrics, the one that ranks, and the number of test prompts.

    Attributes:
        spare: the share of prompts that a complete row may lack, where a judge was not understood.
    """

    name: str
    primary: str
    metrics: tuple[Metric, ...]
    prompts: int
    spare: float = 0.0


@dataclass(frozen=True)
class Run:
    """What became of one cell, and what it cost in units that are the same on every machine.

    Attributes:
        reason: why it is not done, or not to be relied on; empty where it is.
        flops: billed as if the method had paid alone for everything that it reads.
    """

    task: str
    method: str
    settings: str
    seed: int
    status: Status
    reason: str = ""
    pairs: int = 0
    steps: int = 0
    tokens: int = 0
    flops: int = 0


@dataclass(frozen=True)
class Header:
    """What a board must know beside the scores.

    Attributes:
        reference_method: the method that every other one is tested against.
        base: name of the row of the untrained reference policy.
        budget: what every cell was allowed to spend.
        notes: sentences that the reader of a board must see.
    """

    experiment: str
    command: str
    reference_method: str
    base: str
    tasks: tuple[TaskHeader, ...]
    runs: tuple[Run, ...]
    budget: Mapping[str, Any]
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class Scores:
    """The table and its header.

    Attributes:
        frame: one row per (task, metric, method, settings, seed, prompt), sorted by these columns.
    """

    header: Header
    frame: pd.DataFrame = field(repr=False)

    def matrix(self, task: str, metric: str, method: str, settings: str) -> pd.DataFrame:
        """Values of one row of a board: seeds down, prompts across; NaN where one is missing."""
        f = self.frame
        rows = f[
            (f.task == task)
            & (f.metric == metric)
            & (f.method == method)
            & (f.settings == settings)
        ]
        return rows.pivot(index="seed", columns="prompt_id", values="value")


def write_scores(path: Path, scores: Scores) -> None:
    """Write the table, sorted, with the header in the file's own metadata."""
    frame = scores.frame.loc[:, list(COLUMNS)].sort_values(list(COLUMNS[:6]), kind="stable")
    table = pa.Table.from_pandas(frame, preserve_index=False)
    header = json.dumps(asdict(scores.header), sort_keys=True, allow_nan=False)
    metadata = {**(table.schema.metadata or {}), b"harness": header.encode()}
    with replacing(path) as aside:
        pq.write_table(table.replace_schema_metadata(metadata), aside)


def read_scores(path: Path) -> Scores:
    """Read a table written by `write_scores`.

    Raises:
        DataError: no such file, not a scores table, or one of another schema version.
    """
    if not path.is_file():
        raise DataError(f"no scores at {path}: name a run folder or a scores.parquet")
    table = pq.read_table(path)
    raw = json.loads((table.schema.metadata or {}).get(b"harness", b"{}"))
    if raw.get("schema_version") != SCHEMA_VERSION or tuple(table.column_names) != COLUMNS:
        raise DataError(f"{path} is not a scores table of schema version {SCHEMA_VERSION}")
    return Scores(_header(raw), table.to_pandas())


def _header(raw: dict[str, Any]) -> Header:
    def task(row: dict[str, Any]) -> TaskHeader:
        metrics: Sequence[Metric] = tuple(Metric(**m) for m in row["metrics"])
        return TaskHeader(**{**row, "metrics": metrics})

    tasks, runs = tuple(map(task, raw["tasks"])), tuple(Run(**r) for r in raw["runs"])
    return Header(**{**raw, "tasks": tasks, "runs": runs, "notes": tuple(raw["notes"])})
