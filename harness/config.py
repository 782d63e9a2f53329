"""From an experiment file and flags to an `Experiment`; a key that means nothing is an error."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.backends import GenerationSettings, JudgeSettings
from harness.budget import Budget
from harness.config_parts import dotted, make_budget, make_generation, make_judge
from harness.contracts.settings import Setting
from harness.errors import RequestError, unknown

ENGINE_NAMES = ("shared", "padded", "oracle")
"""Names of `harness.engine.engines.ENGINES`, known here without torch."""

TUNINGS = ("auto", "on", "off")


@dataclass(frozen=True)
class Choice:
    """A plug-in by name (or path) with the settings that were asked for."""

    name: str
    settings: Mapping[str, Setting] = field(default_factory=dict)


@dataclass(frozen=True)
class Experiment:
    """One request, complete: everything that the numbers depend on.

    Attributes:
        methods: rows of the boards; the reference method is among them.
        reference_method: the one that every other is tested against.
        model: folder or hub id of the policy to begin with; None: the task's own small model.
        seeds: training runs per method and task.
        data_seed: of everything that is made once: texts, prompts, samples, labels, warm start.
        engine: what turns a model and ids into log-probs; see `harness.engine.choice`.
        tuning: whether the engine's kernels are measured: "auto" does where a cell takes minutes.
        processes: of one training run; numbers agree up to rounding.
        preset: name of the budget that `budget` was made from.
        judge: who compares answers, for the tasks that have a contest.
        generation: what writes completions.
        also_lm_eval: tasks of lm-evaluation-harness, and a folder of one's own, by commas.
        lm_eval_limit: documents of each of these tasks; None: all.
    """

    methods: tuple[Choice, ...]
    tasks: tuple[Choice, ...]
    reference_method: str
    model: str | None
    seeds: int
    data_seed: int
    engine: str
    preset: str
    budget: Budget
    name: str | None = None
    processes: int = 1
    tuning: str = "auto"
    judge: JudgeSettings = field(default_factory=JudgeSettings)
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    also_lm_eval: str | None = None
    lm_eval_limit: int | None = None


DEFAULTS: Mapping[str, Any] = {
    "name": None, "methods": None, "tasks": None, "reference_method": "dpo", "model": None,
    "seeds": 3, "data_seed": 0, "engine": "shared", "processes": 1,
    "tuning": "auto", "also_lm_eval": None, "lm_eval_limit": None,
}  # fmt: skip
"""Keys of an experiment beside its parts, its methods' and its tasks' tables."""

PARTS = ("budget", "judge", "generation")
"""Tables of an experiment beside those of its methods and tasks."""


def read_file(path: Path) -> dict[str, Any]:
    """The keys of a TOML file, dotted.

    Raises:
        RequestError: there is no such file, or it is not TOML; names the line.
    """
    try:
        return dict(dotted(tomllib.loads(path.read_text(encoding="utf-8"))))
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from error
    except tomllib.TOMLDecodeError as error:
        raise RequestError(f"{path} is not TOML: {error}") from error


def read_assignment(text: str) -> tuple[str, Any]:
    """`key=value` as key and value; a value that is no TOML value is a text.

    Raises:
        RequestError: there is no "=" in it.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise RequestError(f"'{text}' is not key=value, such as budget.pairs=2000")
    try:
        return key.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return key.strip(), value


def read_choices(text: str | Iterable[str], key: str) -> list[Choice]:
    """`dpo,simpo:beta=2.5:gamma=0.3` (or a list of such) as choices.

    Raises:
        RequestError: nothing is named, or a setting is not key=value.
    """
    items = text.split(",") if isinstance(text, str) else list(text)
    names = [str(item).strip() for item in items if str(item).strip()]
    if not names:
        raise RequestError(f"'{key}' names nothing")
    choices = []
    for item in names:
        name, *settings = item.split(":")
        choices.append(Choice(name, dict(read_assignment(setting) for setting in settings)))
    return choices


def make_experiment(
    keys: Mapping[str, Any],
    *,
    known_tasks: Iterable[str],
    plugin_name: Callable[[str], str],
) -> Experiment:
    """Check every key and put them together.

    Args:
        keys: dotted keys, later sources already over earlier ones.
        known_tasks: what "all tasks that exist" are.
        plugin_name: from what a user wrote for a plug-in (a name or a path) to its name.

    Raises:
        RequestError: an unknown key, or a value of the wrong type or out of its range.
    """
    top = dict(DEFAULTS)
    tables: dict[str, dict[str, Any]] = {}
    for key, value in keys.items():
        table, dot, rest = key.partition(".")
        if dot:
            tables.setdefault(table, {})[rest] = value
        elif key in top:
            top[key] = value
        else:
            raise unknown("key", key, [*top, *PARTS])
    if top["methods"] is None:
        raise RequestError("no method is named: --methods madpo,alphadpo (see `harness list`)")
    preset, budget = make_budget(tables.pop("budget", {}))
    judge = make_judge(tables.pop("judge", {}))
    generation = make_generation(tables.pop("generation", {}))
    wanted = str(top["reference_method"])
    reference = plugin_name(wanted)
    methods = read_choices(top["methods"], "methods")
    if reference not in [plugin_name(choice.name) for choice in methods]:
        methods.insert(0, Choice(wanted))
    tasks = read_choices(top["tasks"] or sorted(known_tasks), "tasks")
    methods = [_with_table(c, tables, plugin_name(c.name)) for c in methods]
    tasks = [_with_table(c, tables, plugin_name(split_variant(c.name)[0])) for c in tasks]
    used = {plugin_name(c.name) for c in methods}
    used |= {plugin_name(split_variant(c.name)[0]) for c in tasks}
    for table, values in tables.items():
        if table not in used:
            raise unknown("key", f"{table}.{min(values)}", [*used, *PARTS])
    return Experiment(
        methods=_distinct(methods, "method"), tasks=_distinct(tasks, "task"),
        reference_method=reference, model=_text("model", top["model"]),
        seeds=_whole("seeds", top["seeds"], 1), data_seed=_whole("data_seed", top["data_seed"], 0),
        engine=_one_of("engine", top["engine"], ENGINE_NAMES), preset=preset, budget=budget,
        name=_name(top["name"]), processes=_processes(top["processes"], budget),
        tuning=_one_of("tuning", top["tuning"], TUNINGS), judge=judge, generation=generation,
        also_lm_eval=_text("also_lm_eval", top["also_lm_eval"]),
        lm_eval_limit=_limit("lm_eval_limit", top["lm_eval_limit"]),
    )  # fmt: skip


def split_variant(task: str) -> tuple[str, str | None]:
    """`sentiment-high` as the task and its variant; a name without one means all variants."""
    if task.endswith(".py"):
        return task, None
    name, _, variant = task.partition("-")
    return name, variant or None


def _with_table(choice: Choice, tables: Mapping[str, Mapping[str, Any]], name: str) -> Choice:
    return Choice(choice.name, {**tables.get(name, {}), **choice.settings})


def _distinct(choices: list[Choice], kind: str) -> tuple[Choice, ...]:
    for i, choice in enumerate(choices):
        if choice in choices[:i]:
            raise RequestError(f"{kind} '{choice.name}' is named twice with the same settings")
    return tuple(choices)


def _whole(key: str, value: Any, least: int) -> int:
    if type(value) is not int or value < least:
        raise RequestError(f"'{key}' must be a whole number of at least {least}, not {value!r}")
    return value


def _limit(key: str, value: Any) -> int | None:
    return None if value is None else _whole(key, value, 1)


def _processes(value: Any, budget: Budget) -> int:
    processes = _whole("processes", value, 1)
    if processes > budget.pairs_per_step:
        raise RequestError(
            f"'processes' = {processes} is more than budget.pairs_per_step = "
            f"{budget.pairs_per_step}: each process needs a pair of every step"
        )
    return processes


def _one_of(key: str, value: Any, known: Iterable[str]) -> str:
    if value not in (known := tuple(known)):
        raise unknown(key, str(value), known)
    return str(value)


def _name(value: Any) -> str | None:
    name = _text("name", value)
    if name is not None and not re.fullmatch(r"\w[\w.-]*", name):
        raise RequestError(f"'{name}' is not a name for a run: letters, digits, '.', '-' and '_'")
    return name


def _text(key: str, value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise RequestError(f"'{key}' must be a text, not {value!r}")
    return value
