"""The parts of an experiment from their tables: budget, judge, generation; ranges are checked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, TypeVar, get_type_hints

from harness.backends import GenerationSettings, JudgeSettings
from harness.budget import PRESETS, Budget
from harness.contracts.settings import checked, within
from harness.errors import RequestError, unknown

D = TypeVar("D")


def make_budget(table: Mapping[str, Any]) -> tuple[str, Budget]:
    """A preset with single values changed; `lora.rank` reaches into a part of the budget.

    Raises:
        RequestError: an unknown preset or key, a wrong type, or a value out of its range.
    """
    preset = str(table.get("preset", "small"))
    if preset not in PRESETS:
        raise unknown("budget", preset, PRESETS)
    budget = Budget()
    for key, value in {**PRESETS[preset], **table}.items():
        if key != "preset":
            budget = _set(budget, key, value, f"budget.{key}")
    return preset, _in_range(budget)


def make_judge(table: Mapping[str, Any]) -> JudgeSettings:
    """Who judges, from the keys behind `judge.`.

    Raises:
        RequestError: an unknown key, a wrong type, or a value out of its range.
    """
    judge = JudgeSettings()
    for key, value in table.items():
        judge = _set(judge, key, value, f"judge.{key}")
    _in_intervals("judge", judge, {
        "temperature": "[0, inf)", "unreadable": "[0, 1)", "retest": "[0, 1]",
        "concurrency": "[1, inf)", "timeout": "(0, inf)", "retries": "[0, inf)",
        "max_cost": "[0, inf)",
    })  # fmt: skip
    return judge


def make_generation(table: Mapping[str, Any]) -> GenerationSettings:
    """What writes completions, from the keys behind `generation.`.

    Raises:
        RequestError: an unknown key, a wrong type, or a value out of its range.
    """
    generation = GenerationSettings()
    for key, value in table.items():
        generation = _set(generation, key, value, f"generation.{key}")
    _in_intervals("generation", generation, {"memory": "(0, 1]", "concurrency": "[1, inf)"})
    return generation


def _in_intervals(table: str, record: Any, intervals: Mapping[str, str]) -> None:
    for key, interval in intervals.items():
        within(f"{table}.{key}", getattr(record, key), interval)


def _set(record: D, key: str, value: Any, place: str) -> D:
    name, _, rest = key.partition(".")
    names = [f.name for f in fields(record)]  # type: ignore[arg-type]
    if name not in names:
        raise unknown("key", place, [place.removesuffix(key) + n for n in names])
    part = getattr(record, name)
    if rest and is_dataclass(part):
        value = _set(part, rest, value, place)
    elif rest or is_dataclass(part):
        raise RequestError(f"'{place}' is not a single value")
    elif isinstance(part, tuple):
        if not isinstance(value, list | tuple) or not value:
            raise RequestError(f"'{place}' must be a list of numbers, such as [1e-4, 3e-4]")
        value = tuple(checked(place, each, float) for each in value)
    else:
        value = checked(place, value, get_type_hints(type(record))[name])
    return replace(record, **{name: value})  # type: ignore[type-var]


_MAY_BE_ZERO = ("warmup", "weight_decay", "clip", "warm_start.epochs", "lora.rank")


def _in_range(budget: Budget) -> Budget:
    for key, value in dotted(_as_dict(budget)):
        for number in value if isinstance(value, tuple) else (value,):
            _check_number(f"budget.{key}", number, zero=key in _MAY_BE_ZERO)
    for key in ("warmup", "beta1", "beta2"):
        if getattr(budget, key) >= 1:
            raise RequestError(f"'budget.{key}' must be below 1, not {getattr(budget, key)}")
    model = budget.reward_model
    for epochs, per_step in (
        (budget.epochs, budget.pairs_per_step), (model.epochs, model.per_step),
    ):  # fmt: skip
        if budget.pairs * epochs < per_step:
            raise RequestError(
                f"budget.pairs = {budget.pairs} make no whole step of {per_step} pairs"
            )
    if budget.test_prompts < 2:
        raise RequestError("'budget.test_prompts' must be at least 2: an interval takes two")
    return budget


def _check_number(key: str, value: Any, *, zero: bool) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and (value < 0 or (value == 0 and not zero)):
        bound = "0 or more" if zero else "more than 0"
        raise RequestError(f"'{key}' must be {bound}, not {value}")


def _as_dict(record: Any) -> dict[str, Any]:
    return {
        f.name: _as_dict(v) if is_dataclass(v := getattr(record, f.name)) else v
        for f in fields(record)
    }


def dotted(table: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Keys and values of nested tables, keys joined by dots."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
