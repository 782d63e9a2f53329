"""What the verdicts on one model's answers come to, with intervals over prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from harness.judge.exchange.agreement import choice
from harness.judge.exchange.outputs import Joined
from harness.records import Verdict
from harness.stats.agreement import Measured, clustered_mean, clustered_share
from harness.stats.length_control import length_controlled_win_rate


@dataclass(frozen=True)
class Figures:
    """Of one model against one baseline; win rates in percent, intervals over prompts.

    Attributes:
        generator: the model.
        baseline: what it was compared with.
        prompts: with answers of both.
        equal: prompts on which both said the same; each counts a half, and was not asked.
        unreadable: prompts without a verdict that could be read: in no figure.
        unreliable: why the win rates must not be relied on; None where they may.
        win_rate: mean preference for the model.
        discrete_win_rate: the same with each preference rounded to 0, a half or 1.
        length_controlled: what the win rate would be if all answers were as long as the
            baseline's; None with fewer than two verdicts.
        consistency: share of the asked prompts on which both orders prefer the same.
        position_effect: how much more an answer is preferred where it is shown first, 0 to 1.
        characters: mean length of the model's answers.
        baseline_characters: mean length of the baseline's.
        warnings: what to know before believing the length-controlled win rate.
    """

    generator: str
    baseline: str
    prompts: int
    equal: int
    unreadable: int
    unreliable: str | None
    win_rate: Measured | None
    discrete_win_rate: Measured | None
    length_controlled: Measured | None
    consistency: Measured | None
    position_effect: Measured | None
    characters: float
    baseline_characters: float
    warnings: tuple[str, ...] = ()


def figures(
    joined: Sequence[Joined], verdicts: Sequence[Verdict], *, unreadable: float, seed: int = 0
) -> Figures:
    """What the verdicts say.

    Args:
        joined: the answers.
        verdicts: on these, in order.
        unreadable: the share of prompts that may have no verdict.
        seed: of the bootstrap behind the length-controlled interval.
    """
    assert joined, "no answers"
    assert len(joined) == len(verdicts), "one verdict for each prompt"
    told = [v.preference for v in verdicts if v.preference is not None]
    orders = [
        (v.shown_first, v.shown_second)
        for v in verdicts
        if v.shown_first is not None and v.shown_second is not None
    ]
    lost = len(verdicts) - len(told)
    lengths = [(len(a.output.strip()), len(b.output.strip())) for a, b in joined]
    controlled, warnings = _length_controlled(lengths, verdicts, seed)
    return Figures(
        generator=joined[0].answer.generator, baseline=joined[0].baseline.generator,
        prompts=len(joined), equal=sum(not v.asked for v in verdicts), unreadable=lost,
        unreliable=_too_many(lost, len(verdicts), unreadable),
        win_rate=_percent(clustered_share(told)), length_controlled=controlled,
        discrete_win_rate=_percent(clustered_share([(1 + _sign(p - 0.5)) / 2 for p in told])),
        consistency=clustered_share([float(choice(a) == choice(b)) for a, b in orders]),
        position_effect=clustered_mean([a - b for a, b in orders]),
        characters=sum(a for a, _ in lengths) / len(lengths),
        baseline_characters=sum(b for _, b in lengths) / len(lengths), warnings=warnings,
    )  # fmt: skip


def _too_many(lost: int, of: int, allowed: float) -> str | None:
    if lost <= allowed * of:
        return None
    return (
        f"{lost} of {of} prompts have no verdict that could be read, more than the share of "
        f"{allowed:g} that judge.unreadable allows"
    )


def _length_controlled(
    lengths: Sequence[tuple[int, int]], verdicts: Sequence[Verdict], seed: int
) -> tuple[Measured | None, tuple[str, ...]]:
    rows = [
        (i, v.preference, *mine)
        for i, (v, mine) in enumerate(zip(verdicts, lengths, strict=True))
        if v.preference is not None
    ]
    if len(rows) < 2:
        return None, ()
    frame = pd.DataFrame(rows, columns=["prompt_id", "preference", "length", "baseline_length"])
    found = length_controlled_win_rate(frame, rng=np.random.default_rng(seed))
    low, high = found.interval
    measured = Measured(found.value, low, high, found.standard_error, len(rows), len(rows))
    return measured, found.diagnostics.warnings


def _percent(share: Measured | None) -> Measured | None:
    if share is None or share.low is None or share.high is None or share.standard_error is None:
        return share and replace(share, value=100.0 * share.value)
    return replace(
        share, value=100.0 * share.value, low=100.0 * share.low, high=100.0 * share.high,
        standard_error=100.0 * share.standard_error,
    )  # fmt: skip


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
