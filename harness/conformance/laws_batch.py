"""Laws of the step: what a pair's loss may know of the pairs beside it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from harness.conformance.cases import Case, draw, renumbered, rows
from harness.conformance.compare import differ, distance, states_apart
from harness.conformance.findings import BrokenError, SkipError, shown
from harness.conformance.subject import Subject
from harness.contracts.logprobs import LogProbs, PairLogProbs

SAME = 1e-6
"""Relative; a loss may reckon its weights in fp32."""

SOME = ([0, 2], [3], [5, 1, 4], [1], [0], [2, 3, 4, 5])
"""Parts of a step of six pairs."""


def order(subject: Subject) -> None:
    """Pairs in another order have the same losses, in that order, and leave the same memory."""
    if subject.drawing:
        raise SkipError("it draws random numbers, which go to the pairs in their order")
    # Many pairs, too: statistics of some of them are those of all while they are few.
    for drawn in (draw(6, 200), draw(5, 201, apart=0.7), draw(40, 202, apart=0.3)):
        for case in subject.at_any_time(drawn):
            whole = subject(case)
            for seed in range(3):
                g = torch.Generator().manual_seed(seed)
                index = torch.randperm(case.pairs, generator=g).tolist()
                other, expected = subject(rows(case, index)), whole.losses[index]
                if not distance(expected, other.losses) <= SAME:
                    raise BrokenError(
                        f"the losses of the pairs in the order {_told(index)}: {shown(expected)}",
                        shown(other.losses),
                    )
                if not states_apart(whole.state, other.state) <= SAME:
                    expect = f"the same next state for the pairs in the order {_told(index)}"
                    raise BrokenError(expect, "another")


def _told(index: list[int]) -> str:
    return str(index) if len(index) < 10 else f"[{', '.join(map(str, index[:6]))}, ...]"


def coupling(subject: Subject) -> None:
    """A pair's loss depends on the other pairs of the step if, and only if, that is declared."""
    if not subject.method.coupled:
        _is_alone(subject)
    elif not subject.changes or callable(subject.whole.coupled):
        _is_not_alone(subject)


def _is_alone(subject: Subject) -> None:
    for drawn in (draw(6, 210), draw(6, 211, apart=0.7), draw(40, 212)):
        for case in subject.at_any_time(drawn):
            whole = subject(case).losses
            for part in () if subject.drawing else SOME:
                _same(whole[part], subject(rows(case, part)).losses, f"pairs {part} alone")
            for mine, other in _beside_others(subject, case):
                _same(
                    whole[mine], subject(other).losses[mine], f"pairs {_told(mine)} beside others"
                )


def _same(within: Tensor, found: Tensor, which: str) -> None:
    if not distance(within, found) <= SAME:
        raise BrokenError(
            f"the losses that {which} have within the step, as `coupled` is not declared: "
            f"{shown(within)}",
            f"{shown(found)}: add coupled=True, or take nothing over the step",
        )


def _is_not_alone(subject: Subject) -> None:
    for drawn in (draw(6, 220), draw(6, 221, apart=0.7), draw(6, 222, apart=2.0)):
        for case in subject.at_any_time(drawn):
            whole = subject(case).losses
            for mine, other in _beside_others(subject, case):
                if differ(whole[mine], subject(other).losses[mine]):
                    return
    raise BrokenError("losses that depend on the step's other pairs, as coupled=True is declared",
                      "the same losses whatever the others are: leave it out")  # fmt: skip


def _beside_others(subject: Subject, case: Case) -> Iterator[tuple[list[int], Case]]:
    """Half of the pairs, and the case with the other half changed."""
    half = case.pairs // 2
    halves = list(range(half)), list(range(half, case.pairs))
    for mine, others in (halves, halves[::-1]):
        yield mine, renumbered(case, case.seed + 1000, others)
        if not subject.drawing:  # random numbers must go to the same tokens
            yield mine, _shorter(case, others)


def _shorter(case: Case, which: list[int]) -> Case:
    """Some pairs with their last token taken away, where they have two."""

    def shorter(side: LogProbs) -> LogProbs:
        place = side.mask.cumsum(-1)
        last = (place == place[:, -1:]) & (place > 1)
        last[[row for row in range(len(last)) if row not in which]] = False
        mask = side.mask & ~last
        return LogProbs(side.values.masked_fill(~mask, 0.0), mask)

    inputs = {
        name: PairLogProbs(shorter(value.chosen), shorter(value.rejected))
        if isinstance(value, PairLogProbs) else value
        for name, value in case.inputs.items()
    }  # fmt: skip
    return replace(case, inputs=inputs)
