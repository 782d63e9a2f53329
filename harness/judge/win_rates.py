"""What verdicts say: win rates of each prompt, raw and length-controlled, and of the judge."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from harness.contracts.task import LC_WIN_RATE, STYLE, WIN_RATE, Metric
from harness.errors import DataError
from harness.judge.averages import Row, Values, at, averages, by_temperature
from harness.judge.style import style
from harness.records import Completion, Verdict
from harness.stats.length_control import LengthControlled, length_controlled_win_rate
from harness.stats.strength import style_differences

CONSISTENCY = Metric(
    "consistency", "%", None, "verdicts that prefer the same answer in both orders"
)
POSITION = Metric(
    "position_effect", "%", None,
    "how much more the policy's answer is preferred where it is shown first than second",
)  # fmt: skip
CHARACTERS = Metric("characters", "characters", None, "of an answer")
BASELINE_CHARACTERS = Metric(
    "baseline_characters", "characters", None, "of the baseline's answer", detail=True
)

ROUNDING = 1e-9
"""Below this two preferences are the same number, one of them taken from 1."""


def contest_metrics(temperatures: Sequence[float]) -> tuple[Metric, ...]:
    """The metrics of every task whose answers are compared with a baseline's."""
    sweep = [at(WIN_RATE, t, detail=False) for t in temperatures] if len(temperatures) > 1 else []
    return (
        WIN_RATE, LC_WIN_RATE, *sweep, CONSISTENCY, POSITION, CHARACTERS, BASELINE_CHARACTERS,
        *STYLE,
    )  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """What the verdicts on one run's completions say.

    Attributes:
        rows: (prompt, metric, value).
        length: what to know of the length-controlled win rate; None below two prompts.
    """

    rows: list[Row]
    length: LengthControlled | None


def judged(completions: Sequence[Completion], verdicts: Sequence[Verdict]) -> Judged:
    """Win rates of each prompt, and what they say of the judge.

    A verdict that could not be read counts nowhere: it has no value.

    Raises:
        DataError: the verdicts are not about these completions.
    """
    if [(c.prompt_id, c.sample, c.temperature) for c in completions] != [
        (v.prompt_id, v.sample, v.temperature) for v in verdicts
    ]:
        raise DataError("the verdicts are not about these completions: judge them again")
    ordered = any(map(_hangs_on_order, verdicts))
    values = [_values(c, v, ordered) for c, v in zip(completions, verdicts, strict=True)]
    wins = [{k: x for k, x in value.items() if k == WIN_RATE.name} for value in values]
    looks = _style(completions, verdicts)
    rows = [
        *averages(completions, values), *by_temperature(completions, wins),
        *averages(completions, looks),
    ]  # fmt: skip
    length = _length_controlled(completions, verdicts)
    if length is not None:
        rows += [(str(p), LC_WIN_RATE.name, v) for p, v in length.per_prompt.items()]
    return Judged(rows, length)


def _values(completion: Completion, verdict: Verdict, ordered: bool) -> dict[str, float]:
    """Of one completion; what the order does only where it does something at all."""
    found = {
        CHARACTERS.name: float(len(completion.text.strip())),
        BASELINE_CHARACTERS.name: float(len(verdict.baseline.strip())),
    }
    if verdict.preference is not None:
        found[WIN_RATE.name] = 100 * verdict.preference
    if (
        ordered
        and verdict.asked
        and verdict.shown_first is not None
        and verdict.shown_second is not None
    ):
        first, second = verdict.shown_first - 0.5, verdict.shown_second - 0.5
        found[CONSISTENCY.name] = 100.0 * (first * second > 0 or first == second == 0)
        found[POSITION.name] = 100 * (first - second)
    return found


def _hangs_on_order(verdict: Verdict) -> bool:
    one, other = verdict.shown_first, verdict.shown_second
    return one is not None and other is not None and abs(one - other) > ROUNDING


def _style(completions: Sequence[Completion], verdicts: Sequence[Verdict]) -> list[Values]:
    """How each answer looks beside the baseline's."""
    differences = style_differences(
        pd.DataFrame([style(c.text.strip()) for c in completions]),
        pd.DataFrame([style(v.baseline.strip()) for v in verdicts]),
    )
    columns = [metric.name for metric in STYLE]
    return [
        dict(zip(columns, map(float, row), strict=True))
        for row in differences.itertuples(index=False)
    ]


def _length_controlled(
    completions: Sequence[Completion], verdicts: Sequence[Verdict]
) -> LengthControlled | None:
    """The win rate at equal lengths; its interval is the board's, from the values per prompt.

    Every temperature weighs alike, as in the raw win rate.
    """
    read = [v for v in verdicts if v.preference is not None]
    answers = Counter((v.prompt_id, v.temperature) for v in read)
    frame = pd.DataFrame(
        [
            {
                "prompt_id": v.prompt_id, "preference": v.preference,
                "length": len(c.text.strip()), "baseline_length": len(v.baseline.strip()),
                "weight": 1 / answers[v.prompt_id, v.temperature],
            }
            for c, v in zip(completions, verdicts, strict=True)
            if v.preference is not None
        ]
    )  # fmt: skip
    if not len(frame) or frame["prompt_id"].nunique() < 2:
        return None
    return length_controlled_win_rate(frame, draws=0, rng=np.random.default_rng(0))
