"""The settings that are tried for a method: as many for each, in an order that a seed decides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from harness.budget import Budget
from harness.contracts.method import Method
from harness.errors import RequestError


@dataclass(frozen=True)
class Trial:
    """One combination of a method's settings and a learning rate."""

    settings: Mapping[str, Any]
    learning_rate: float


def trials(method: Method, settings: Mapping[str, Any], budget: Budget, seed: int) -> list[Trial]:
    """The first is the row as it is; the rest come from the grid crossed with the learning rates.

    Raises:
        RequestError: there are fewer different trials than every method is given.
    """
    first = Trial(dict(settings), budget.learning_rate)
    others: list[Trial] = []
    for rate in budget.learning_rates:
        for values in product(*method.grid.values()):
            chosen = {**settings, **dict(zip(method.grid, values, strict=True))}
            # What has no effect beside the rest stays as it is: it would make the same trial twice.
            idle = {key: settings[key] for key in method.grid if not method.uses(key, chosen)}
            trial = Trial({**chosen, **idle}, rate)
            if trial != first and trial not in others:
                others.append(trial)
    if len(others) + 1 < budget.trials:
        raise RequestError(
            f"method '{method.name}' has {len(others) + 1} different trials, and budget.trials = "
            f"{budget.trials} for every method: lower it or give more budget.learning_rates"
        )
    # The name is part of the seed, so that adding a method changes no other method's trials.
    order = np.random.default_rng([seed, *method.name.encode()]).permutation(len(others))
    return [first, *(others[i] for i in order[: budget.trials - 1])]


def edges(trial: Trial, method: Method, budget: Budget) -> list[str]:
    """Settings whose value is the smallest or the largest that was to be tried.

    A winner at an edge may have a better neighbour that nobody tried.
    """
    tried = {**method.grid, "learning_rate": (budget.learning_rate, *budget.learning_rates)}
    chosen = {**trial.settings, "learning_rate": trial.learning_rate}
    used = [name for name in tried if method.uses(name, chosen)]
    return [name for name in used if chosen[name] in _ends(tried[name])]


def _ends(values: Sequence[Any]) -> set[float]:
    """The smallest and the largest of several numbers; nothing where they are words, or one."""
    numbers = {v for v in values if isinstance(v, int | float) and not isinstance(v, bool)}
    return {min(numbers), max(numbers)} if len(numbers) > 1 else set()
