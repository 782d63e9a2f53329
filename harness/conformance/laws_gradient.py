"""Laws of gradients: there is one, it is that of the loss, and it points where it should."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from harness.conformance.cases import Case, at_reference, draw, shifted
from harness.conformance.findings import BrokenError
from harness.conformance.frozen import Cuts
from harness.conformance.subject import Subject
from harness.contracts.logprobs import LogProbs, PairTokens

SIDES = ("chosen", "rejected")
TRUE = 1e-6
"""How far gradient and differences may be apart, relative to the sum of the terms' sizes."""

VANISHED = 1e-6
"""The least that gradients of long answers may be of those of short ones."""

MANY = 60
"""Pairs: enough for a loss that learns from a part of the tokens to touch every place."""

OVERSHOT = (1.0, 10.0, 100.0, 1000.0, 3000.0)
"""How far in nats answers are moved in search of a place where the loss turns round."""


def exists(subject: Subject) -> None:
    """Both answers are learnt from, at every place of a token, and long ones like short ones."""
    short, far = draw(MANY, 110, lengths=(8, 12)), draw(MANY, 111, apart=0.7)
    long = replace(draw(MANY, 112, lengths=(150, 200)), words="answers of 150 to 200 tokens")
    sizes = [
        [_sizes(subject, case) for case in subject.at_any_time(drawn)]
        for drawn in (short, far, long)
    ]
    for one, _, other in zip(*sizes, strict=True):
        for side in SIDES:
            ratio = other[side] / one[side]
            if ratio < VANISHED:  # and not NaN, which `finite` tells of
                raise BrokenError(
                    f"gradients of long {side} answers of the order of those of short ones",
                    f"{ratio:.2g} of them: a weight of a summed log-prob vanishes with the length",
                )


def _sizes(subject: Subject, case: Case) -> dict[str, float]:
    """The largest gradient by the log-probs of each side, which is not 0."""
    slopes = subject.slopes(case)
    if "divergence" in slopes.by:
        _some(torch.cat(slopes.by["divergence"], 1), "by `divergence`", case.words)
    for side, slope in zip(SIDES, slopes.by["policy"], strict=True):
        _some(slope, f"by the log-probs of the {side} answers", case.words)
        _at_every_place(getattr(case.policy, side).mask, slope, f"{side} answers ({case.words})")
    chosen, rejected = (float(slope.abs().max()) for slope in slopes.by["policy"])
    return {"chosen": chosen, "rejected": rejected}


def _some(slope: Tensor, by: str, words: str) -> None:
    if not bool((slope != 0).any()):
        raise BrokenError(f"a gradient {by} other than 0 for some pairs", f"0 for all ({words})")


def _at_every_place(mask: Tensor, slope: Tensor, which: str) -> None:
    """No place is left out in all answers; a loss may choose other tokens in each of them."""
    place = mask.cumsum(-1)
    shorter = int(mask.sum(-1).median())  # places that half of the answers have
    for whence, numbers in (("start", place), ("end", place[:, -1:] + 1 - place)):
        learnt = set(numbers[mask & (slope != 0)].tolist())
        if left_out := sorted(set(range(1, shorter + 1)) - learnt):
            raise BrokenError(
                f"a gradient at every place of some {which}",
                f"none in any answer at token {left_out[0]}, counted from the {whence}",
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
            plain, told = _error(subject, case, name, weights, None)
            if plain > largest:
                largest, words = plain, f"by `{name}`: {told} ({case.words})"
            if plain > TRUE:
                _true_but_for_cuts(subject, case, name, weights)
    if not subject.changes:
        _as_declared(subject.whole.stop_gradient, largest, words)


def _true_but_for_cuts(subject: Subject, case: Case, name: str, weights: Tensor) -> None:
    frozen, told = _error(subject, case, name, weights, Cuts())
    if frozen > TRUE:
        raise BrokenError(
            f"a gradient by `{name}` that is that of the loss, with all that the loss cuts out of "
            "the graph held constant",
            f"{told} ({case.words})",
        )


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
    """No chosen token is made less likely and no rejected one likelier, where that is declared.

    What is declared must also not be less than what holds. It is said of the defaults; under other
    words a loss must at least not train every pair backwards.
    """
    declared = subject.method.direction
    if subject.changes and not callable(subject.whole.direction):
        if declared != "unclaimed":
            _not_backwards(subject)
        return
    at_start = _first_violation(subject, [_start(seed) for seed in range(4)], strict=True)
    anywhere = at_start or _first_violation(subject, _everywhere(), strict=False)
    holds = "unclaimed" if at_start else "at_reference" if anywhere else "everywhere"
    if holds == declared:
        return
    order = ("everywhere", "at_reference", "unclaimed")
    if order.index(declared) < order.index(holds):
        raise BrokenError(
            f"a gradient that makes no chosen token less likely and no rejected one likelier: "
            f'direction="{declared}" is declared',
            anywhere or at_start,
        )
    raise BrokenError(
        f"a place where the gradient makes a chosen token less likely or a rejected one likelier, "
        f'as direction="{declared}" is declared',
        f'none on any of the inputs: declare direction="{holds}"',
    )


def _not_backwards(subject: Subject) -> None:
    for seed in range(4):
        case = _start(seed)
        chosen, rejected = subject.slopes(case).by["policy"]
        if not bool((chosen.sum(-1) - rejected.sum(-1) > 0).all()):
            return
    raise BrokenError(
        "a loss that falls for some pairs as the chosen answer becomes likelier and the rejected "
        "one less likely",
        f"one that rises for all ({case.words})",
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


def _first_violation(subject: Subject, cases: Iterable[Case], *, strict: bool) -> str:
    """Where and how the gradient points the wrong way, or, if strict, nowhere; "" if it does not.

    Of the sum over the step: a coupled loss trades pairs against each other.
    """
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
