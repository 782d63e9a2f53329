"""The suite: every check, what it is there for, and the report on one method."""

from __future__ import annotations

import random
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import torch

from harness.conformance import (
    laws_batch,
    laws_contract,
    laws_engine,
    laws_gradient,
    laws_inputs,
    laws_numbers,
)
from harness.conformance.alternatives import corners, forms
from harness.conformance.cases import draw
from harness.conformance.findings import BrokenError, Finding, Report, SkipError
from harness.conformance.subject import Outcome, Subject
from harness.contracts.method import Method
from harness.contracts.settings import Setting
from harness.errors import RequestError
from harness.registry import load_method

Law: TypeAlias = Callable[[Subject], None]
Scope: TypeAlias = Literal["defaults", "forms", "corners"]


SCOPES: Mapping[Scope, tuple[Scope, ...]] = {
    "defaults": ("defaults",),
    "forms": ("defaults", "forms"),
    "corners": ("defaults", "forms", "corners"),
}


@dataclass(frozen=True)
class Check:
    """One law and the mistake that it is there for.

    Attributes:
        id: its name in reports.
        trap: the mistake that it is there for, one that really happened.
        law: raises where it does not hold.
        scope: "defaults"; "forms", also every other word, bool and None of a setting; or
            "corners", also grid values and the ends of bounds.
    """

    id: str
    trap: str
    law: Law
    scope: Scope = "defaults"


def _loaded(subject: Subject) -> None:
    """Nothing more to say: `check_method` has loaded it."""


CHECKS: tuple[Check, ...] = (
    Check("loads", "a name that nobody reads, or one that nobody provides", _loaded),
    Check("described", "a loss that nobody can hold against its source", laws_contract.described),
    Check("shape", "a mean of means; a row of losses broadcast against a column of them",
          laws_contract.shape, "corners"),
    Check("state", "a memory that cannot be saved, grows, or never moves",
          laws_contract.state, "forms"),
    Check("inputs-untouched", "what one method changes in place, the next one reads",
          laws_contract.inputs_untouched, "forms"),
    Check("repeatable", "a memory outside of the state; the same seed, other bits",
          laws_contract.repeatable, "forms"),
    Check("finite", "0/0 at the first step, where the policy is the reference; overflow",
          laws_numbers.finite, "corners"),
    Check("gradient-exists", "a loss that trains nothing, or no longer does on long answers",
          laws_gradient.exists, "forms"),
    Check("gradient-true", "a weight or margin leaks gradient, or has lost it",
          laws_gradient.true, "forms"),
    Check("direction", "the sign of the gradient; chosen and rejected swapped",
          laws_gradient.direction, "forms"),
    Check("padding", "what is outside the mask, or the width of the batch, counts",
          laws_numbers.padding, "forms"),
    Check("order", "the order of the pairs changes their losses",
          laws_batch.order, "forms"),
    Check("coupling", "statistics of the micro-batch instead of the step",
          laws_batch.coupling, "forms"),
    Check("micro-batches", "the split of a step changes its gradient",
          laws_engine.micro_batches),
    Check("resume", "a memory that is not in the checkpoint", laws_engine.resume),
    Check("evaluation", "evaluation updates the statistics of training",
          laws_engine.evaluation),
    Check("not-dpo", "a variant that is DPO under another name", laws_inputs.not_dpo),
    Check("reads-used", "an input that is read and not used",
          laws_inputs.reads_used),
    Check("only-for", "an input that is needed although it is said not to be",
          laws_contract.only_for),
    Check("at-reference", "the loss of the first step is not what is declared",
          laws_inputs.at_the_reference),
    Check("lengths", "lengths counted from numbers that are not zero",
          laws_numbers.lengths, "forms"),
    Check("bf16", "sums in half precision", laws_numbers.bf16, "forms"),
    Check("settings-used", "an option that is accepted and ignored",
          laws_inputs.settings_used),
)  # fmt: skip
"""All checks, in the order of a report."""


def check_method(name_or_path: str) -> Report:
    """Hold one method, by name or by the path of its file, to every check.

    Never raises for what the method does: whatever goes wrong in it is a finding.
    """
    began = time.perf_counter()
    loads, *rest = CHECKS
    try:
        method = load_method(name_or_path)
    except RequestError as error:
        found = _failed(loads, "a method that can be imported and keeps the contract", str(error),
                        began)  # fmt: skip
        name = name_or_path
        return Report(name, (found, *(_skipped(check, "it does not load") for check in rest)))
    passed = Finding(loads.id, loads.trap, "passed", seconds=time.perf_counter() - began)
    with _quietly():
        return Report(method.name, (passed, *_findings(method, rest)))


def _findings(method: Method, checks: list[Check]) -> Iterator[Finding]:
    """One after the other; what makes all others pointless is told once."""
    changes, pointless = _changes(method), ""
    for check in checks:
        if pointless:
            yield _skipped(check, pointless)
            continue
        some = [change for change, scope in changes if scope in SCOPES[check.scope]]
        yield _held_to(method, check, some)
        if check.id == "shape":
            # Settings under which nothing can be computed have just been told of.
            changes = [one for one in changes if _outcome(method, one[0]) is not None]
            pointless = "" if changes and not changes[0][0] else "no losses to check: see shape"
        elif check.id == "state" and not _remembers_tensors(method):
            pointless = "no memory to go on with: see state"


def _changes(method: Method) -> list[tuple[Mapping[str, Setting], Scope]]:
    """The defaults, then every change of settings that some checks look at."""
    found: list[tuple[Mapping[str, Setting], Scope]] = [({}, "defaults")]
    found += [(change, "forms") for change in forms(method)]
    return found + [(change, "corners") for change in corners(method)]


def _outcome(method: Method, change: Mapping[str, Setting]) -> Outcome | None:
    """Of an ordinary step; None where there are no losses of it."""
    try:
        found = Subject.of(method, change)(draw(6))
    except (Exception, SystemExit):
        return None
    return found if found.losses.shape == (6,) else None


def _remembers_tensors(method: Method) -> bool:
    found = _outcome(method, {})
    return found is not None and all(isinstance(v, torch.Tensor) for v in found.state.values())


def _held_to(method: Method, check: Check, changes: Sequence[Mapping[str, Setting]]) -> Finding:
    began = time.perf_counter()
    skipped = ""
    for change in changes:
        try:
            check.law(Subject.of(method, change))
        except SkipError as skip:
            skipped = skipped or ("" if change else str(skip))
        except RequestError as error:
            if not change:  # any other settings may be refused
                return _failed(check, "losses with the defaults", str(error), began)
        except BrokenError as broken:
            return _failed(check, broken.expected, broken.came, began, change)
        except (Exception, SystemExit) as error:
            came = f"{type(error).__name__}: {error}{_line(method, error)}"
            return _failed(check, "losses, and no error", came, began, change)
    seconds = time.perf_counter() - began
    return Finding(check.id, check.trap, "skipped" if skipped else "passed", "", skipped, seconds)


def _failed(
    check: Check,
    expected: str,
    came: str,
    began: float,
    change: Mapping[str, Setting] | None = None,
) -> Finding:
    words = ", ".join(f"{key}={value!r}" for key, value in (change or {}).items())
    seconds = time.perf_counter() - began
    told = f"{came} (with {words})" if words else came
    return Finding(check.id, check.trap, "failed", expected, told, seconds)


def _skipped(check: Check, reason: str) -> Finding:
    return Finding(check.id, check.trap, "skipped", came=reason)


def _line(method: Method, error: BaseException) -> str:
    """Where in the method's file an error arose."""
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__)
             if f.filename == method.file]  # fmt: skip
    return f" ({method.file}, line {lines[-1]})" if lines else ""


@contextmanager
def _quietly() -> Iterator[None]:
    """Leave the global random generators as they were: checks put them where they like."""
    kept = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a loss gives back is what counts
            yield
    finally:
        random.setstate(kept[0])
        np.random.set_state(kept[1])
