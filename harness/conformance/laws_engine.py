"""Laws of training: through the real engine, for any split of a step, killed or evaluated."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from harness.conformance.compare import distance, same_bits, states_apart
from harness.conformance.engine import Step, Trained, one_step, trained
from harness.conformance.findings import BrokenError, shown
from harness.conformance.subject import Subject

NEAR = 1e-5
"""fp32 through a model: relative."""

ROWS = (0, 1, 2, 3, 4, 5)


def micro_batches(subject: Subject) -> None:
    """The gradient of a step is the same for any number of pairs in memory at once."""
    state = subject.initial
    for _ in range(1 if state is None else 2):
        whole = one_step(subject, ROWS, len(ROWS), state)
        for size in (1, 2, 3):
            _same_step(whole, one_step(subject, ROWS, size, state), f"micro-batches of {size}")
        state = whole.state


def _same_step(whole: Step, split: Step, words: str) -> None:
    if not distance(whole.losses, split.losses) <= NEAR:
        raise BrokenError(f"the losses of a whole step with {words}: {shown(whole.losses)}",
                          shown(split.losses))  # fmt: skip
    apart = (whole.gradient - split.gradient).norm() / whole.gradient.norm().clamp_min(1e-30)
    if not float(apart) <= NEAR:
        raise BrokenError(
            f"the gradient of a whole step with {words}, of length {whole.gradient.norm():.6g}",
            f"one that is {float(apart):.2g} of that away",
        )
    if not states_apart(whole.state or {}, split.state or {}) <= NEAR:
        raise BrokenError(f"the next state of a whole step with {words}", "another")


def resume(subject: Subject) -> None:
    """A run that was killed and goes on from its checkpoint ends with the same bits."""
    which = "a run that was killed after half of its steps and went on from its checkpoint"
    _same_end(trained(subject), trained(subject, killed=True), which)


def evaluation(subject: Subject) -> None:
    """Evaluating held-out pairs between the steps changes nothing of the training."""
    which = "a run that evaluated held-out pairs between its steps"
    _same_end(trained(subject), trained(subject, evaluated=True), which)


def _same_end(plain: Trained, other: Trained, which: str) -> None:
    # A saturated loss moves no weight, whatever evaluation has done to its memory.
    _same("the losses", {"losses": plain.losses}, {"losses": other.losses}, which)
    _same("the memory", plain.state, other.state, which)
    _same("the weights", plain.weights, other.weights, which)


def _same(what: str, one: Mapping[str, Tensor], two: Mapping[str, Tensor], which: str) -> None:
    if set(one) != set(two):
        raise BrokenError(f"{what} of {which} to have the names {sorted(one)}", str(sorted(two)))
    for name, tensor in one.items():
        if not same_bits(tensor, two[name]):
            raise BrokenError(
                f"{what} of {which} to be that of one that was left alone: {name} {shown(tensor)}",
                shown(two[name]),
            )
