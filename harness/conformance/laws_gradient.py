"""Laws of gradients: there is one, it is that of the loss, and it points where it should."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from harness.conformance.cases import Case, at_reference, draw, shifted
from harness.conformance.findings import BrokenError, shown
from harness.conformance.frozen import Cuts
from harness.conformance.subject import Slopes, Subject
from harness.contracts.logprobs import LogProbs, PairTokens

SIDES = ("chosen", "rejected")
TRUE = 1e-6
"""How far gradient and differences may be apart, relative to the sum of the terms' sizes."""

VANISHED = 1e-6
"""The least that gradients of long answers may be of those of short ones."""

OVERSHOT = (1.0, 10.0, 100.0, 1000.0, 3000.0)
"""How far in nats answers are moved in search of a place where the loss turns round."""


def exists(subject: Subject) -> None:
    """Both answers of some pairs are learnt from, every token of some, and long ones too."""
    for apart in (0.1, 0.7):
        for case in subject.at_any_time(draw(8, 110, apart=apart)):
            slopes = subject.slopes(case)
            for side, slope in zip(SIDES, slopes.by["policy"], strict=True):
                _some(slope, f"by the log-probs of the {side} answers", case.words)
            if "divergence" in slopes.by:
                _some(torch.cat(slopes.by["divergence"], 1), "by `divergence`", case.words)
            if not subject.drawing:  # which may leave tokens out
                _every_token(case, slopes)
    _long_answers(subject)


def _some(slope: Tensor, by: str, words: str) -> None:
    if not bool((slope != 0).any()):
        raise BrokenError(f"a gradient {by} other than 0 for some pairs", f"0 for all ({words})")


def _every_token(case: Case, slopes: Slopes) -> None:
    answers = (case.policy.chosen, case.policy.rejected)
    for side, answer, slope in zip(SIDES, answers, slopes.by["policy"], strict=True):
        whole = ((slope != 0) | ~answer.mask).all(-1)
        if not bool(whole.any()):
            raise BrokenError(f"some {side} answers with a gradient at each of their tokens",
                              f"tokens without one in every answer: {shown(slope[0])}")  # fmt: skip


def _long_answers(subject: Subject) -> None:
    short = draw(8, 120, lengths=(8, 12))
    long = replace(draw(8, 121, lengths=(150, 200)), words="answers of 150 to 200 tokens")
    for near, far in zip(subject.at_any_time(short), subject.at_any_time(long), strict=True):
        slopes = [subject.slopes(case).by["policy"] for case in (near, far)]
        for side, one, other in zip(SIDES, *slopes, strict=True):
            ratio = float(other.abs().max() / one.abs().max())
            if not ratio >= VANISHED:
                raise BrokenError(
                    f"gradients of long {side} answers of the order of those of short ones",
                    f"{ratio:.2g} of them: a weight of a summed log-prob vanishes with the length",
                )


def true(subject: Subject) -> None:
    """The gradient is that of the loss, but for what is declared to be held constant.

    With everything constant that the loss itself cuts out of the graph, gradient and differences
    must agree always; with nothing held constant, exactly where no `stop_gradient` is declared.
    """
    largest, words = 0.0, ""
    for case in _smooth_cases(subject):
        weights = 0.5 + torch.rand(case.pairs, generator=torch.Generator().manual_seed(130),
                                   dtype=torch.float64)  # fmt: skip
        for name in subject.slopes(case).by:
            cuts = Cuts()
            frozen, told = _error(subject, case, name, weights, cuts)
            if frozen > TRUE:
                raise BrokenError(
                    f"a gradient by `{name}` that is that of the loss, with all that the loss "
                    "cuts out of the graph held constant",
                    f"{told} ({case.words})",
                )
            plain, told = _error(subject, case, name, weights, None)
            if plain > largest:
                largest, words = plain, f"by `{name}`: {told} ({case.words})"
    if not subject.changes:
        _as_declared(subject.whole.stop_gradient, largest, words)


def _as_declared(declared: str, largest: float, words: str) -> None:
    if largest > TRUE and not declared:
        raise BrokenError(
            "a gradient that is that of the loss, as no `stop_gradient` is declared",
            f"{words}: let the gradient through, or declare what is held constant",
        )
    if declared and largest <= TRUE:
        raise BrokenError(
            f"a gradient that leaves out what `stop_gradient` names: {declared}",
            "the gradient of the whole loss: detach it, or declare nothing",
        )


def _smooth_cases(subject: Subject) -> Iterator[Case]:
    for drawn in (draw(5, 131), draw(6, 132, apart=0.6)):
        yield from subject.at_any_time(drawn)


def _error(
    subject: Subject, case: Case, name: str, weights: Tensor, cuts: Cuts | None
) -> tuple[float, str]:
    """Distance of gradient and central differences along random directions; the worst in words."""
    slope = subject.slopes(case, weights, cuts).by[name]
    value = _along(subject, case, name, weights, cuts)
    worst, told = 0.0, ""
    for seed in range(2):
        g = torch.Generator().manual_seed(seed)
        ways = [torch.randn(s.shape, generator=g, dtype=torch.float64) for s in slope]
        terms = torch.cat([(s * w).flatten() for s, w in zip(slope, ways, strict=True)])
        expected = float(terms.sum())
        scale = max(float(terms.abs().sum()), 1e-12)
        # A kink within the larger step is not within the smaller one.
        found = [(value(ways, h) - value(ways, -h)) / (2 * h) for h in (1e-5, 1e-6)]
        size = max(scale, abs(found[0]))
        nearest = min(found, key=lambda number: abs(number - expected))
        error = abs(nearest - expected) / size
        if not error <= worst:
            worst, told = error, f"autograd {expected:.8g}, differences {nearest:.8g}"
    return worst, told


def _along(
    subject: Subject, case: Case, name: str, weights: Tensor, cuts: Cuts | None
) -> Callable[[list[Tensor], float], float]:
    """The weighted sum of the losses at a step along a direction, as a function of both."""

    def value(ways: list[Tensor], step: float) -> float:
        pair: PairTokens = case.inputs[name]
        sides = zip((pair.chosen, pair.rejected), ways, strict=True)
        moved = PairTokens(*(LogProbs(s.values + step * w, s.mask) for s, w in sides))
        there = case.having("", **{name: moved})
        if cuts is not None:
            # On leaves, as in the first evaluation: an operation is a cut by its inputs.
            there = subject.on_leaves(there)
        found = subject(there, cuts and cuts.again())
        return float((found.losses.detach() * weights).sum())

    return value


def direction(subject: Subject) -> None:
    """A likelier chosen and a less likely rejected answer cost no more, where that is declared.

    What is declared must also not be less than what holds.
    """
    declared = subject.whole.direction
    at_start = _first_violation(subject, [_start(seed) for seed in range(4)], strict=True)
    anywhere = at_start or _first_violation(subject, _everywhere(), strict=False)
    holds = "unclaimed" if at_start else "at_reference" if anywhere else "everywhere"
    if holds == declared:
        return
    order = ("everywhere", "at_reference", "unclaimed")
    if order.index(declared) < order.index(holds):
        raise BrokenError(
            f'that no likelier chosen and no less likely rejected answer costs more: direction="'
            f'{declared}" is declared',
            anywhere or at_start,
        )
    raise BrokenError(
        f"a place where a likelier chosen or less likely rejected answer costs more, as "
        f'direction="{declared}" is declared',
        f'none on any of the inputs: declare direction="{holds}"',
    )


def _start(seed: int) -> Case:
    """The reference itself; for a loss that does not read it, any policy at all."""
    return at_reference(draw(6, 140 + seed))


def _everywhere() -> Iterator[Case]:
    for seed, apart in enumerate((0.01, 0.1, 0.5, 2.0)):
        yield draw(6, 150 + seed, apart=apart)
    for amount in OVERSHOT:
        for chosen, rejected in ((1, -1), (-1, 1), (1, 1), (-1, -1)):
            yield shifted(draw(4, 160), amount * chosen, amount * rejected)


def _first_violation(subject: Subject, cases: object, *, strict: bool) -> str:
    """Where and how the gradient points the wrong way, or, if strict, nowhere; "" if it does not.

    Of the sum over the step: a coupled loss trades pairs against each other.
    """
    assert hasattr(cases, "__iter__")
    for drawn in cases:
        for case in [drawn] if strict else subject.at_any_time(drawn):
            chosen, rejected = subject.slopes(case).by["policy"]
            wrong = _wrong(chosen, rejected)
            if wrong:
                return f"{wrong} ({case.words})"
            if strict and not float(chosen.sum() - rejected.sum()) < 0:
                return f"no gradient along which the loss falls ({case.words})"
    return ""


def _wrong(chosen: Tensor, rejected: Tensor) -> str:
    """The first pair that is pushed the wrong way by more than rounding."""
    size = torch.cat([chosen.abs(), rejected.abs()], 1).amax(-1)
    slack = 1e-6 * size + 1e-14 * size.max()
    for side, slope in (("chosen", chosen), ("rejected", -rejected)):
        highest = slope.amax(-1)
        if bool((highest > slack).any()):
            pair = int((highest - slack).argmax())
            number = float(highest[pair]) * (1 if side == "chosen" else -1)
            return f"a gradient of {number:.3g} by the log-prob of a {side} token"
    return ""
