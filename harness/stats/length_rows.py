"""The rows of a length-controlled win rate, checked and joined by id."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from harness.stats.logistic import Numbers

Difficulty = Mapping[object, float] | pd.DataFrame | pd.Series
NAMES = ("bias", "length", "difficulty")
LENGTHS = ("length", "baseline_length")
ALPACA_EVAL = {"index": "prompt_id", "instruction_difficulty": "difficulty"}


@dataclass(frozen=True)
class BaselineRows:
    """Rows of rewrites of the baseline's own answers: they tell what length alone does.

    Attributes:
        difference: length less baseline length, in standard deviations of that rewrite.
        difficulty: of the prompts; zeros where difficulty is not used.
        preference: for the rewrite, 0 to 1.
        weight: of the row's loss.
    """

    difference: Numbers
    difficulty: Numbers
    preference: Numbers
    weight: Numbers


@dataclass(frozen=True)
class Rows:
    """Judged answers, sorted by prompt.

    Attributes:
        ids: of the prompts, sorted.
        position: of each row in the frame.
        prompt: place of each row's prompt among `ids`.
        share: the row's part of its prompt's weights, so that every prompt counts once.
        preference: for the model, 0 to 1.
        difference: length less baseline length, in characters.
        difficulty: of each row's prompt; None without difficulty.
        baseline: rewrites of the baseline, or None.
        dropped: rows left out because they have no preference.
    """

    ids: tuple[object, ...]
    position: npt.NDArray[np.int_]
    prompt: npt.NDArray[np.int_]
    share: Numbers
    preference: Numbers
    difference: Numbers
    difficulty: Numbers | None
    baseline: BaselineRows | None
    dropped: int

    @property
    def names(self) -> tuple[str, ...]:
        """The coefficients' names, in order."""
        return NAMES if self.difficulty is not None else NAMES[:2]


def checked_rows(
    frame: pd.DataFrame, difficulty: Difficulty | None, baseline_rows: pd.DataFrame | None
) -> Rows:
    """The rows of a frame, sorted by prompt; those without a preference left out and counted.

    Raises:
        ValueError: a column or a difficulty is missing, a number is out of range, or fewer than
            two prompts have a preference. The message names the prompt.
    """
    _need(frame, ("prompt_id", "preference", "length", "baseline_length"), "frame")
    if frame["prompt_id"].isna().any():
        raise ValueError(f"{int(frame['prompt_id'].isna().sum())} rows have no prompt_id")
    judged = frame[frame["preference"].notna()]
    place, ids = pd.factorize(judged["prompt_id"], sort=True)
    if len(ids) < 2:
        raise ValueError(f"{len(ids)} prompts have a preference: a win rate needs at least 2")
    order = np.argsort(place, kind="stable")
    judged, place = judged.iloc[order], place[order]
    names = [f"prompt '{name}'" for name in judged["prompt_id"]]
    lengths = [_numbers(judged, column, 0.0, np.inf, names) for column in LENGTHS]
    scale = _difficulties(difficulty)
    weight = np.ones(len(judged))
    if "weight" in judged:
        weight = _numbers(judged, "weight", np.finfo(np.float64).tiny, np.inf, names)
    return Rows(
        ids=tuple(ids),
        position=np.flatnonzero(frame["preference"].notna())[order],
        prompt=place,
        share=weight / np.bincount(place, weight)[place],
        preference=_numbers(judged, "preference", 0.0, 1.0, names),
        difference=lengths[0] - lengths[1],
        difficulty=None if scale is None else _joined(judged["prompt_id"], scale),
        baseline=None if baseline_rows is None else _baseline(baseline_rows, scale),
        dropped=len(frame) - len(judged),
    )


def alpaca_eval_baseline_rows(frame: pd.DataFrame, weight: float = 0.2) -> pd.DataFrame:
    """AlpacaEval's table of rewritten baselines (`df_gamed.csv`), in the form used here.

    Args:
        frame: columns `model, index, preference, std_delta_len, instruction_difficulty`, in which
            lengths are those of the baseline less those of the rewrite.
        weight: of all rewrites of one prompt together; AlpacaEval's is 0.2.
    """
    _need(frame, ("model", "index", "preference", "std_delta_len"), "AlpacaEval's table")
    return pd.DataFrame(
        {
            "prompt_id": frame["index"],
            "preference": frame["preference"],
            "standardised_difference": -frame["std_delta_len"],
            "weight": weight / frame["model"].nunique(),
            "difficulty": frame.get("instruction_difficulty"),
        }
    )


def _baseline(given: pd.DataFrame, scale: pd.Series | None) -> BaselineRows:
    frame = alpaca_eval_baseline_rows(given) if "std_delta_len" in given else given
    _need(frame, ("preference", "weight"), "baseline_rows")
    names = [f"baseline row {row}" for row in range(len(frame))]
    difficulty = np.zeros(len(frame))
    if scale is not None and "difficulty" in frame and frame["difficulty"].notna().all():
        difficulty = _numbers(frame, "difficulty", -np.inf, np.inf, names)
    elif scale is not None:
        _need(frame, ("prompt_id",), "baseline_rows without a difficulty of their own")
        difficulty = _joined(frame["prompt_id"], scale)
    return BaselineRows(
        difference=_standardised(frame, names),
        difficulty=difficulty,
        preference=_numbers(frame, "preference", 0.0, 1.0, names),
        weight=_numbers(frame, "weight", 0.0, np.inf, names),
    )


def _standardised(frame: pd.DataFrame, names: list[str]) -> Numbers:
    """Differences in standard deviations, of each rewrite (column `model`) its own."""
    if "standardised_difference" in frame:
        return _numbers(frame, "standardised_difference", -np.inf, np.inf, names)
    _need(frame, LENGTHS, "baseline_rows")
    lengths = [_numbers(frame, column, 0.0, np.inf, names) for column in LENGTHS]
    difference = pd.Series(lengths[0] - lengths[1])
    model = frame["model"].to_numpy() if "model" in frame else np.zeros(len(frame))
    spread = difference.groupby(model).transform("std")
    return (difference / spread.where(spread > 0.0, 1.0)).to_numpy(dtype=np.float64)


def _difficulties(given: Difficulty | None) -> pd.Series | None:
    if given is None:
        return None
    if isinstance(given, pd.DataFrame):
        frame = given.rename(columns=ALPACA_EVAL)
        _need(frame, ("prompt_id", "difficulty"), "difficulty")
        scale = pd.Series(frame["difficulty"].to_numpy(), index=frame["prompt_id"])
    else:
        scale = pd.Series(given)
    if not scale.index.is_unique:
        twice = scale.index[scale.index.duplicated()][0]
        raise ValueError(f"prompt '{twice}' has two difficulties")
    return scale


def _joined(ids: pd.Series, scale: pd.Series) -> Numbers:
    found = ids.map(scale).to_numpy(dtype=np.float64)
    missing = np.flatnonzero(~np.isfinite(found))
    if missing.size:
        raise ValueError(
            f"prompt '{ids.iloc[missing[0]]}' has no difficulty (nor have "
            f"{ids.iloc[missing].nunique() - 1} others): difficulties belong to one set of "
            "prompts; leave them out to control for length alone"
        )
    return found


def _numbers(
    frame: pd.DataFrame, column: str, least: float, most: float, names: list[str]
) -> Numbers:
    found = frame[column].to_numpy(dtype=np.float64)
    bad = np.flatnonzero(~(np.isfinite(found) & (found >= least) & (found <= most)))
    if bad.size:
        raise ValueError(
            f"{names[bad[0]]} has {column} {found[bad[0]]}: expected a number in "
            f"[{least:g}, {most:g}]"
        )
    return found


def _need(frame: pd.DataFrame, columns: tuple[str, ...], what: str) -> None:
    missing = [column for column in columns if column not in frame]
    if missing:
        raise ValueError(f"{what}: no column '{missing[0]}' among {', '.join(map(str, frame))}")
