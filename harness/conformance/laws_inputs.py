"""Laws of inputs and settings: each of them matters, and what is declared of them is true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import combinations
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from harness.conformance.alternatives import alternatives, combined, corners, forms
from harness.conformance.cases import Case, at_reference, draw, extremes
from harness.conformance.compare import any_differ, differ, distance
from harness.conformance.findings import BrokenError, SkipError, shown
from harness.conformance.subject import Subject
from harness.contracts.logprobs import LogProbs, PairTokens
from harness.contracts.method import Method
from harness.contracts.settings import Setting
from harness.errors import RequestError

ORIGIN = "dpo"
"""The method that may be DPO."""

EXACT = 1e-9


def not_dpo(subject: Subject) -> None:
    """A method of another name is another loss than DPO's."""
    method = subject.whole
    if method.name == ORIGIN:
        raise SkipError("it is DPO")
    if method.moving_reference:
        raise SkipError("it is DPO with a reference that the engine moves")
    beta = subject.settings.get("beta")
    beta = float(beta) if isinstance(beta, float | int) else 0.1
    for drawn in (draw(6, 300), draw(6, 301, apart=0.7)):
        for case in subject.at_any_time(drawn):
            gaps = [p.chosen.total() - p.rejected.total() for p in (case.policy, case.reference)]
            losses = -logsigmoid(beta * (gaps[0] - gaps[1]))
            found = subject(case).losses
            if differ(losses, found):
                return
    came = f"{shown(found)}: it is DPO on random inputs; an option or an input is inert"
    raise BrokenError(f"losses other than DPO's with beta {beta:g}: {shown(losses)}", came)


def reads_used(subject: Subject) -> None:
    """Every input changes some loss, under the settings that need it."""
    method = subject.whole
    parts: list[tuple[str, int | None]] = [
        (name, None) for name in method.parameters if name not in ("policy", "rewards")
    ]
    both = [("rewards", 0), ("rewards", 1)] if "rewards" in method.parameters else []
    unused = [_said(method, *part) for part in [*parts, *both] if not _used(method, *part)]
    if unused:
        raise BrokenError(
            f"another loss for another {' and for another '.join(unused)}",
            "the same losses: read and not used; take it out of the signature",
        )


def _said(method: Method, name: str, part: int | None) -> str:
    which = f"`{name}`" if part is None else f"`{name}[{part}]`"
    given = [" and ".join(f"{k}={v!r}" for k, v in c.items()) for c in _needing(method, name) if c]
    return f"{which} with {' or '.join(given)}" if given else which


def _used(method: Method, name: str, part: int | None) -> bool:
    for subject in (Subject.of(method, changes) for changes in _needing(method, name)):
        for drawn in (draw(6, 310), draw(6, 311, apart=0.7), draw(6, 312, apart=0.3)):
            for case in subject.at_any_time(drawn):
                losses = subject(case).losses
                others = _perturbed(subject, case, name, part)
                if any(differ(losses, subject(other).losses) for other in others):
                    return True
    return False


def _needing(method: Method, name: str) -> list[Mapping[str, Setting]]:
    """Settings under which an input is read: the defaults, or those that `only_for` names."""
    found: list[Mapping[str, Setting]] = [{}] if name in method.reads else []
    for key, values in method.only_for.get(name, {}).items():
        found += [{key: value} for value in values if value != method.defaults[key]]
    return found


def _perturbed(subject: Subject, case: Case, name: str, part: int | None) -> Iterator[Case]:
    g = torch.Generator().manual_seed(320)
    if name == "state":
        yield replace(case, state=subject.initial)
        yield replace(case, state=subject.later)
        return
    if name == "rng":
        yield from (replace(case, seed=seed) for seed in range(1000, 1008))
        return
    for size in (0.3, 3.0):
        yield case.having(**{name: _moved(case.inputs[name], size, g, part)})


def _moved(value: Any, size: float, g: torch.Generator, part: int | None) -> Any:
    def move(numbers: Tensor) -> Tensor:
        return numbers + size * torch.rand(numbers.shape, generator=g, dtype=torch.float64)

    if isinstance(value, PairTokens):
        sides = (value.chosen, value.rejected)
        # Not above 0 where log-probs stand, so that the perturbed input is a possible one too.
        signs = [1.0 if bool((s.values[s.mask] > 0).any()) else -1.0 for s in sides]
        return PairTokens(*(LogProbs(s.values + sign * (move(s.values) - s.values), s.mask)
                            for s, sign in zip(sides, signs, strict=True)))  # fmt: skip
    if isinstance(value, tuple):
        return tuple(move(v) if part in (None, i) else v for i, v in enumerate(value))
    return move(value)


def at_the_reference(subject: Subject) -> None:
    """The declared loss at policy = reference is true, and declared where it is one constant."""
    method = subject.whole
    checked = 0
    for changes in [{}, *forms(method), *corners(method)]:
        try:
            checked += _is_declared(Subject.of(method, changes))
        except RequestError:
            continue  # the method refuses these settings
    if not checked:
        _is_no_constant(subject)


def _is_declared(subject: Subject) -> bool:
    declared = subject.method.at_reference
    if not isinstance(declared, float | int):
        return False
    for seed, losses in _starts(subject):
        expected = torch.full_like(losses, float(declared))
        if not distance(expected, losses) <= EXACT:
            raise BrokenError(
                f"a loss of {float(declared):.9g} where the policy is the reference, as "
                f"at_reference says{f' with {subject.words}' if subject.changes else ''}",
                f"{shown(losses)} (seed {seed})",
            )
    return True


def _is_no_constant(subject: Subject) -> None:
    if "reference" not in subject.reads:
        raise SkipError("it does not read the reference and declares no value there")
    found = torch.cat([losses for _, losses in _starts(subject)])
    if bool(found.isfinite().all()) and distance(found, found[:1].expand_as(found)) <= EXACT:
        raise BrokenError(
            "at_reference, where the loss at policy = reference is one constant",
            f"no value declared and {float(found[0]):.9g} on all inputs: declare "
            f"at_reference={float(found[0]):.9g}, so that the gate of a run can hold it to that",
        )


def _starts(subject: Subject) -> Iterator[tuple[int, Tensor]]:
    """Losses at the reference: of each pair, or the step's mean where they hang together."""
    for seed in range(330, 336):
        longest = 6 + 5 * (seed % 3)
        losses = subject(at_reference(draw(4 + seed % 3, seed, lengths=(1, longest)))).losses
        yield seed, losses.mean(0, keepdim=True) if subject.method.coupled else losses


def settings_used(subject: Subject) -> None:
    """Every setting changes a loss, a gradient or the memory on some inputs, under some words."""
    method = subject.whole
    engines = method.moving_reference or ()
    keys = [key for key in method.defaults if key not in engines]
    if not keys:
        raise SkipError("it has no settings that the loss reads")
    probes = _Probes(method)
    inert = [key for key in keys if not _matters(method, key, probes)]
    if inert:
        raise BrokenError(
            f"another loss, gradient or memory on some inputs for another value of "
            f"{' and of '.join(f'`{key}`' for key in inert)}",
            "the same for each of "
            + "; ".join(f"{key} in {_tried(method, key)}" for key in inert)
            + ": it is accepted and ignored",
        )


def _tried(method: Method, key: str) -> str:
    return str([method.defaults[key], *alternatives(method, key)][:6])


class _Probes:
    """Results of a method on telling cases, one by one and kept, by settings."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self._kept: dict[tuple[str, int], list[Tensor] | None] = {}
        near, far = draw(6, 340), draw(6, 341, apart=1.0)
        self.cases = [near, far, draw(6, 342, apart=0.01), at_reference(near), *extremes()]

    def of(self, changes: Mapping[str, Setting], place: int) -> list[Tensor] | None:
        """Losses, gradients and memories for one case; None where the settings are refused."""
        key = repr(sorted(changes.items())), place
        if key not in self._kept:
            self._kept[key] = self._compute(changes, self.cases[place])
        return self._kept[key]

    def _compute(self, changes: Mapping[str, Setting], case: Case) -> list[Tensor] | None:
        found: list[Tensor] = []
        try:
            subject = Subject.of(self.method, changes)
            for one in subject.at_any_time(case):
                slopes = subject.slopes(one)
                found += [slopes.losses, *(s for pair in slopes.by.values() for s in pair)]
                found += [slopes.state[name] for name in sorted(slopes.state)]
        except RequestError:
            return None
        except Exception as error:
            words = ", ".join(f"{key}={value!r}" for key, value in changes.items())
            came = f"{type(error).__name__}: {error} ({case.words})"
            raise BrokenError(f"losses with {words or 'the defaults'}", came) from error
        return found


def _matters(method: Method, key: str, probes: _Probes) -> bool:
    others = [change for change in forms(method) if key not in change]
    bases: list[dict[str, Setting]] = [{}, *others]
    bases += [combined(*two) for two in combinations(others, 2) if not set(two[0]) & set(two[1])]
    return any(
        _tells(probes.of(base, place), probes.of({**base, key: value}, place))
        for base in bases
        for value in alternatives(method, key)
        for place in range(len(probes.cases))
    )


def _tells(one: list[Tensor] | None, other: list[Tensor] | None) -> bool:
    if one is None or other is None:
        return False
    return len(one) != len(other) or any_differ(one, other)
