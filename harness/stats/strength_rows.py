"""Judged games as a table for a Bradley-Terry fit, checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_matrix, csgraph

from harness.stats.logistic import Games, Numbers

Places = npt.NDArray[np.int_]


@dataclass(frozen=True)
class Table:
    """Games, one a row.

    Attributes:
        methods: names, the baseline first.
        covariates: names.
        prompts: how many.
        prompt: place of each game's prompt.
        first: place of its method among `methods`.
        second: place of the opponent.
        preference: for the method, 0 to 1.
        x: 1 for the method, -1 for the opponent (the baseline has no column), then covariates.
    """

    methods: tuple[str, ...]
    covariates: tuple[str, ...]
    prompts: int
    prompt: Places
    first: Places
    second: Places
    preference: Numbers
    x: Numbers

    def count_games(self) -> dict[str, int]:
        """Games of each method."""
        counts = np.bincount(np.concatenate([self.first, self.second]), minlength=len(self.methods))
        return dict(zip(self.methods, map(int, counts), strict=True))

    def one_sided(self) -> Iterator[str]:
        """A sentence for each method whose strength lies at an end of the scale."""
        won = np.bincount(self.first, self.preference, len(self.methods))
        won += np.bincount(self.second, 1.0 - self.preference, len(self.methods))
        for name, wins, games in zip(self.methods, won, self.count_games().values(), strict=True):
            if wins in (0.0, games):
                what = "won" if wins else "lost"
                yield (
                    f"'{name}' {what} every one of its {games} games: its strength lies at the "
                    "end of the scale and the interval does not show how far."
                )


def played(
    frame: pd.DataFrame, baseline: str, style: pd.DataFrame | None, *, centred: bool
) -> Table:
    """The games that have a preference.

    Raises:
        ValueError: as `harness.stats.strength.strengths` says.
    """
    _need(frame)
    kept = frame["preference"].notna().to_numpy()
    judged = frame[kept]
    against = judged["opponent"] if "opponent" in frame else np.full(len(judged), baseline)
    names = (baseline, *sorted({*judged["method"], *against} - {baseline}))
    place = {name: i for i, name in enumerate(names)}
    first = np.array([place[name] for name in judged["method"]], dtype=np.int_)
    second = np.array([place[name] for name in against], dtype=np.int_)
    _check(judged, names, first, second)
    prompt, ids = pd.factorize(judged["prompt_id"], sort=True)
    covariates = _covariates(style, kept, centred=centred)
    signs = np.eye(len(names))[first] - np.eye(len(names))[second]
    return Table(
        methods=names,
        covariates=() if style is None else tuple(map(str, style)),
        prompts=len(ids),
        prompt=prompt,
        first=first,
        second=second,
        preference=judged["preference"].to_numpy(dtype=np.float64),
        x=np.concatenate([signs[:, 1:], covariates], axis=1),
    )


def tallies(table: Table, prompt_weights: Numbers) -> Games:
    """The games of each two methods as one row, under every weighting of the prompts.

    Without covariates games of the same two are told apart by nothing but their prompts, so their
    numbers and their preferences can be added up before the fit: one row and one weight for each
    side of it.
    """
    size = len(table.methods)
    meetings, which = np.unique(table.first * size + table.second, return_inverse=True)
    shape = (table.prompts, meetings.size)
    place = (table.prompt, which)
    won = coo_matrix((table.preference, place), shape=shape).toarray()
    lost = coo_matrix((1.0 - table.preference, place), shape=shape).toarray()
    signs = np.eye(size)[meetings // size] - np.eye(size)[meetings % size]
    return Games(
        np.concatenate([signs[:, 1:], signs[:, 1:]])[None],
        np.repeat([1.0, 0.0], meetings.size),
        np.concatenate([prompt_weights @ won, prompt_weights @ lost], axis=1),
    )


def _need(frame: pd.DataFrame) -> None:
    for column in ("prompt_id", "method", "preference"):
        if column not in frame:
            raise ValueError(f"no column '{column}' among {', '.join(map(str, frame))}")
    for column in [x for x in ("prompt_id", "method", "opponent") if x in frame]:
        if frame[column].isna().any():
            raise ValueError(f"{int(frame[column].isna().sum())} games have no {column}")


def _check(judged: pd.DataFrame, names: tuple[str, ...], first: Places, second: Places) -> None:
    preference = judged["preference"].to_numpy(dtype=np.float64)
    outside = np.flatnonzero(~((preference >= 0.0) & (preference <= 1.0)))
    if outside.size:
        row = judged.iloc[outside[0]]
        raise ValueError(
            f"'{row['method']}' on prompt '{row['prompt_id']}' has preference "
            f"{row['preference']}: expected a number in [0, 1]"
        )
    if (first == second).any():
        raise ValueError(f"'{names[first[first == second][0]]}' plays against itself")
    links = coo_matrix((np.ones(first.size), (first, second)), shape=(len(names), len(names)))
    groups = csgraph.connected_components(links, directed=False)[1]
    apart = np.flatnonzero(groups != groups[0])
    if first.size == 0 or apart.size:
        who = f"'{names[apart[0]]}'" if apart.size else "any method"
        raise ValueError(
            f"no chain of games leads from {who} to the baseline '{names[0]}': "
            "their strengths cannot be compared"
        )


def _covariates(
    style: pd.DataFrame | None, kept: npt.NDArray[np.bool_], *, centred: bool
) -> Numbers:
    if style is None:
        return np.zeros((int(kept.sum()), 0))
    if len(style) != kept.size:
        raise ValueError(f"style has {len(style)} rows, the games {kept.size}: one for each")
    values = style.to_numpy(dtype=np.float64)[kept]
    if not np.isfinite(values).all():
        column = style.columns[~np.isfinite(values).all(axis=0)][0]
        raise ValueError(f"style '{column}' holds a value that is missing or not finite")
    centre = values.mean(axis=0)
    spread = values.std(axis=0, ddof=1)
    # A covariate that is the same in all games cannot be told from the strengths: it has no effect.
    spread = np.where(spread > 1e-12 * np.abs(centre), spread, np.inf)
    return np.asarray((values - centre if centred else values) / spread, dtype=np.float64)
