"""Bradley-Terry strengths of the rows of a task whose answers were compared with a baseline's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from harness.board.candidates import Candidate
from harness.board.contents import Standing
from harness.contracts.task import STYLE, WIN_RATE
from harness.stats.strength import strengths

BASELINE = "the baseline"  # no method is called so: a name has no space
DRAWS = 500


def standings(complete: Sequence[Candidate]) -> tuple[Mapping[str, Standing], tuple[str, ...]]:
    """By label, and what to know of them; intervals cover prompts, not seeds.

    Both are empty where no answers were compared.

    Args:
        complete: rows that have the same prompts.
    """
    names = (WIN_RATE.name, *(metric.name for metric in STYLE))
    if not complete or any(row.tables.get(n, _NONE).empty for row in complete for n in names):
        return {}, ()
    games = pd.concat([_games(row, names) for row in complete], ignore_index=True)
    frame = games[["prompt_id", "method", "preference"]]
    style = games[[metric.name for metric in STYLE]]
    plain = strengths(frame, baseline=BASELINE, draws=DRAWS, rng=_rng())
    styled = strengths(frame, baseline=BASELINE, style=style, draws=DRAWS, rng=_rng())
    found = {c.label: Standing(plain.methods[c.label], styled.methods[c.label]) for c in complete}
    return found, tuple(dict.fromkeys((*plain.warnings, *styled.warnings)))


_NONE = pd.DataFrame()


def _rng() -> np.random.Generator:
    """The same draws for every board: equal scores make equal bytes."""
    return np.random.default_rng(0)


def _games(row: Candidate, names: Sequence[str]) -> pd.DataFrame:
    """One game a prompt: what the row's runs got on average."""
    means = {name: row.tables[name].mean(axis=0) for name in names}
    frame = pd.DataFrame(means).dropna()
    return frame.assign(
        prompt_id=frame.index.astype(str), method=row.label,
        preference=(frame[WIN_RATE.name] / 100).clip(0.0, 1.0),
    )  # fmt: skip
