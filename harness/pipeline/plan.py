"""Everything that an experiment makes, and in which order it can be made."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from harness.config import Experiment
from harness.generate.backends import backend
from harness.pipeline.layout import Cell, Layout
from harness.pipeline.names import Board, Row, boards, rows
from harness.store.stage import Stage


@dataclass(frozen=True)
class Plan:
    """Everything that an experiment makes, in an order in which it can be made.

    Attributes:
        writes: which backend writes completions, and why.
    """

    experiment: Experiment
    rows: Sequence[Row]
    boards: Sequence[Board]
    cells: Sequence[Cell]
    writes: str

    @cached_property
    def ends(self) -> list[Stage]:
        """What is wanted of every cell."""
        return [stage for cell in self.cells for stage in cell.ends]

    @cached_property
    def stages(self) -> list[Stage]:
        """Every stage once, inputs before what reads them."""
        found: dict[str, Stage] = {}

        def visit(stage: Stage) -> None:
            for source in stage.inputs.values():
                visit(source)
            found.setdefault(stage.key, stage)

        for stage in self.ends:
            visit(stage)
        return list(found.values())


def plan(experiment: Experiment) -> Plan:
    """Resolve every name, check every setting and lay out the stages; nothing is made.

    Raises:
        RequestError: an unknown method, task, variant or setting, or a value out of its range.
        DataError: a model or a data set that does not exist.
    """
    found, shown = rows(experiment), boards(experiment)
    reference = next(row for row in found if row.method.name == experiment.reference_method)
    purse = uuid.uuid4().hex
    lora_rank = experiment.budget.lora.rank
    written, why = backend(experiment.generation, lora_rank=lora_rank)
    cells = [
        cell
        for board in shown
        for cell in Layout(experiment, board, reference.method, purse, written).cells(found)
    ]
    return Plan(experiment, found, shown, cells, why)
