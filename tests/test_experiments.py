"""The published set-ups can be read, and every setting in them exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config import make_experiment, read_file, split_variant
from harness.pipeline.names import rows
from harness.registry import found, load_task

FILES = sorted((Path(__file__).parents[1] / "experiments").glob("*.toml"))
GIVEN = {"alpacaeval": {"eval": "a-file"}}
"""What the file itself says that the user must give."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_an_experiment_can_be_laid_out(path: Path) -> None:
    experiment = make_experiment(
        read_file(path), known_tasks=found("tasks"), plugin_name=lambda text: text
    )
    assert {row.method.name for row in rows(experiment)} >= {experiment.reference_method}
    for choice in experiment.tasks:
        name = split_variant(choice.name)[0]
        plugin = load_task(name)
        given = GIVEN.get(name, {}) if choice.settings else {}
        task = plugin.build(**plugin.resolve({**choice.settings, **given}))
        asked = "--judge-model" in path.read_text(encoding="utf-8")
        assert asked == (task.contest is not None and task.contest.rule is None)


def test_there_are_experiments() -> None:
    assert len(FILES) >= 5
