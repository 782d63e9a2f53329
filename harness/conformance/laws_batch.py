"""Laws of the step: what a pair's loss may know of the pairs beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from harness.conformance.cases import Case, draw, rows
from harness.conformance.compare import differ, distance, states_apart
from harness.conformance.findings import BrokenError, SkipError, shown
from harness.conformance.subject import Subject
from harness.contracts.logprobs import LogProbs, PairLogProbs

SAME = 1e-9
SOME = ([0, 2], [3], [5, 1, 4], [1], [0], [2, 3, 4, 5])
"""Parts of a step of six pairs."""


def order(subject: Subject) -> None:
    """Pairs in another order have the same losses, in that order, and leave the same memory."""
    if subject.drawing:
        raise SkipError("it draws random numbers, which go to the pairs in their order")
    for drawn in (draw(6, 200), draw(6, 201, apart=0.7), draw(5, 202, apart=0.3)):
        for case in subject.at_any_time(drawn):
            whole = subject(case)
            for seed in range(3):
                g = torch.Generator().manual_seed(seed)
                index = torch.randperm(case.pairs, generator=g).tolist()
                other, expected = subject(rows(case, index)), whole.losses[index]
                if not distance(expected, other.losses) <= SAME:
                    raise BrokenError(
                        f"the losses of the pairs in the order {index}: {shown(expected)}",
                        shown(other.losses),
                    )
                if not states_apart(whole.state, other.state) <= SAME:
                    raise BrokenError(f"the same next state for the pairs in the order {index}",
                                      "another")  # fmt: skip


def coupling(subject: Subject) -> None:
    """A pair's loss depends on the other pairs of the step if, and only if, that is declared."""
    if subject.whole.coupled:
        if not subject.changes:
            _depends(subject)
        return
    if subject.drawing:
        raise SkipError("it draws random numbers, so the engine gives it whole steps")
    for drawn in (draw(6, 210), draw(6, 211, apart=0.7)):
        for case in subject.at_any_time(drawn):
            whole = subject(case).losses
            for part in SOME:
                _alone(whole[part], subject(rows(case, part)).losses, f"pairs {part} alone")
            for other in (_others_changed(case), _others_shorter(case)):
                _alone(whole[:3], subject(other).losses[:3], "pairs [0, 1, 2] beside others")


def _alone(within: Tensor, found: Tensor, which: str) -> None:
    if not distance(within, found) <= SAME:
        raise BrokenError(
            f"the losses that {which} have within the step, as `coupled` is not declared: "
            f"{shown(within)}",
            f"{shown(found)}: add coupled=True, or take nothing over the step",
        )


def _depends(subject: Subject) -> None:
    changes = [_others_changed] if subject.drawing else [_others_changed, _others_shorter]
    for drawn in (draw(6, 220), draw(6, 221, apart=0.7), draw(6, 222, apart=2.0)):
        for case in subject.at_any_time(drawn):
            first = subject(case).losses[:3]
            if any(differ(first, subject(change(case)).losses[:3]) for change in changes):
                return
    raise BrokenError("losses that depend on the step's other pairs, as coupled=True is declared",
                      "the same losses whatever the others are: leave it out")  # fmt: skip


def _others_changed(case: Case) -> Case:
    """The last three pairs with other numbers, the same lengths."""
    other = draw(case.pairs, case.seed + 1000, apart=1.0)

    def mix(one: Any, two: Any) -> Any:
        if isinstance(one, PairLogProbs):
            sides = ((one.chosen, two.chosen), (one.rejected, two.rejected))
            return PairLogProbs(*(_mixed(a, b) for a, b in sides))
        if isinstance(one, tuple):
            return tuple(torch.cat([a[:3], b[3:]]) for a, b in zip(one, two, strict=True))
        return torch.cat([one[:3], two[3:]])

    inputs = {name: mix(value, other.inputs[name]) for name, value in case.inputs.items()}
    return replace(case, inputs=inputs)


def _mixed(one: LogProbs, other: LogProbs) -> LogProbs:
    """The mask of the first; values of the second, repeated or cut, in the last three rows."""
    width = one.mask.shape[1]
    columns = torch.arange(width) % other.mask.shape[1]
    values = torch.cat([one.values[:3], other.values[3:, columns]])
    # Where the second answer is shorter, its first token stands in for the rest.
    rest = torch.cat([one.mask[:3], other.mask[3:, columns]])
    filled = torch.where(rest, values, values[:, :1])
    return LogProbs(filled.masked_fill(~one.mask, 0.0), one.mask)


def _others_shorter(case: Case) -> Case:
    """The last three pairs with their last token taken away, where they have two."""

    def shorter(side: LogProbs) -> LogProbs:
        place = side.mask.cumsum(-1)
        last = (place == place[:, -1:]) & (place > 1)
        mask = side.mask & ~(last & (torch.arange(len(last))[:, None] >= 3))
        return LogProbs(side.values.masked_fill(~mask, 0.0), mask)

    inputs = {
        name: PairLogProbs(shorter(value.chosen), shorter(value.rejected))
        if isinstance(value, PairLogProbs) else value
        for name, value in case.inputs.items()
    }  # fmt: skip
    return replace(case, inputs=inputs)
