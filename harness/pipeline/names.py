"""From the names that a user gave to rows and boards; every setting is checked here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.backends import JUDGE_MEANS, JUDGE_READS, JudgeSettings
from harness.config import Choice, Experiment, split_variant
from harness.contracts.method import Method
from harness.contracts.task import Contest, Task, TaskPlugin
from harness.data.identity import locate, pin
from harness.errors import RequestError, unknown
from harness.judge.judges import check_judge, kind_of
from harness.judge.lm_eval import check_lm_eval, read_tasks
from harness.pipeline.trials import Trial, trials
from harness.registry import load_method, load_task

BASE = "reference"
"""Name of the row of the untrained reference policy."""

TUNED = "tuned"
"""Label of a method's row whose settings were chosen by trials."""


@dataclass(frozen=True)
class Row:
    """A method with its settings: one row of every board.

    Attributes:
        label: the settings that differ from the defaults, "" where none does.
        trials: what is tried before the row's own runs; none: it runs as it is.
    """

    method: Method
    path: str
    settings: Mapping[str, Any]
    label: str
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True)
class Board:
    """One variant of a task: pairs of its own, and so a ranking of its own.

    Attributes:
        settings: of the task, with outside data and models pinned to what they are right now.
        content: fingerprints of these, by setting.
    """

    name: str
    plugin: TaskPlugin
    path: str
    variant: str
    settings: Mapping[str, Any]
    content: Mapping[str, str]

    @cached_property
    def task(self) -> Task:
        """The task for its settings."""
        return self.plugin.build(**self.settings)


def rows(experiment: Experiment) -> list[Row]:
    """The rows of every board: each choice, then each method's tuned row where trials are paid.

    Raises:
        RequestError: an unknown method or setting, a row twice, or too few different trials.
    """
    found = _rows(experiment.methods)
    if experiment.budget.trials > 1:
        first = {row.method.name: row for row in reversed(found)}
        names = dict.fromkeys(row.method.name for row in found)
        found += [_tuned(first[name], experiment) for name in names]
    return found


def _tuned(row: Row, experiment: Experiment) -> Row:
    tried = trials(row.method, row.settings, experiment.budget, experiment.data_seed)
    return replace(row, label=f"{TUNED} {row.label}".strip(), trials=tuple(tried))


def boards(experiment: Experiment) -> list[Board]:
    """The boards of an experiment.

    Raises:
        RequestError: an unknown task, variant or setting, a board twice, no model to begin with, or
            a judge that cannot be asked.
        DataError: a model or a data set that does not exist.
    """
    found = [board for choice in experiment.tasks for board in _boards(choice)]
    _check_model(experiment.model, found)
    if experiment.also_lm_eval is not None:
        check_lm_eval(read_tasks(experiment.also_lm_eval))
    contests = [board.task.contest for board in found if board.task.contest is not None]
    _check_judge(experiment.judge, contests)
    names = [board.name for board in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise RequestError(f"task '{twice}' is named twice")
    return found


def _check_judge(judge: JudgeSettings, contests: Sequence[Contest]) -> None:
    """A judge can be asked, and reads every setting that was given."""
    given = {f.name for f in fields(judge) if getattr(judge, f.name) != f.default}
    if given and not contests:
        raise RequestError(
            f"judge.{min(given)} is given, and no task here compares its answers with a baseline's:"
            " leave it out, or name a task that does"
        )
    for contest in contests:
        check_judge(judge, contest)
        kind = kind_of(judge, contest)
        read = {"kind", "unreadable", "retest", *JUDGE_READS[kind]}
        if unread := given - read - set(JUDGE_MEANS if kind == "openai" else ()):
            raise RequestError(
                f"judge.{min(unread)} is not read where judge.kind is {kind}: leave it out, or "
                "name another kind of judge"
            )


def _check_model(model: str | None, boards: Sequence[Board]) -> None:
    """What can be said of a model before it is loaded, so that nothing is begun in vain."""
    if model is None:
        if lacking := next((b for b in boards if b.task.small_model is None), None):
            raise RequestError(f"'{lacking.plugin.name}' with these data needs --model")
        return
    place = locate(model)
    if isinstance(place, Path):
        for pattern in ("config.json", "*.safetensors", "tokenizer*"):
            if not any(place.glob(pattern)):
                raise RequestError(f"'{model}' is not a model folder: it holds no {pattern}")


def _rows(choices: Sequence[Choice]) -> list[Row]:
    rows = []
    for choice in choices:
        method = load_method(choice.name).narrowed(choice.settings)
        settings = method.resolve(choice.settings)
        changed = {k: v for k, v in settings.items() if v != method.defaults[k]}
        label = " ".join(f"{k}={v}" for k, v in sorted(changed.items()))
        path = str(Path(choice.name).resolve()) if choice.name.endswith(".py") else choice.name
        rows.append(Row(method, path, settings, label))
    for i, row in enumerate(rows):
        if (row.method.name, row.label) in [(r.method.name, r.label) for r in rows[:i]]:
            raise RequestError(f"method '{row.method.name}' is named twice with the same settings")
        if row.method.name == BASE:
            raise RequestError(f"a method cannot be called '{BASE}': that is the untrained policy")
    return rows


def _boards(choice: Choice) -> Iterator[Board]:
    name, variant = split_variant(choice.name)
    plugin = load_task(name)
    settings = plugin.resolve(choice.settings)
    plugin.build(**settings)
    content = {}
    for key, kind in plugin.paths.items():
        if settings[key] is not None:
            settings[key], content[key] = pin(str(settings[key]), kind)
    if variant is not None and variant not in plugin.variants:
        raise unknown(f"variant of task '{name}'", variant, plugin.variants)
    path = str(Path(name).resolve()) if name.endswith(".py") else name
    for each in [variant] if variant else plugin.variants or ("",):
        title = f"{plugin.name}-{each}" if each else plugin.name
        yield Board(title, plugin, path, each, settings, content)
