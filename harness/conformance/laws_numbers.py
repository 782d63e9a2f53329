"""Laws of numbers: finite everywhere, the mask decides what counts, and precision is kept."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from harness.conformance.cases import Case, cast, draw, extremes, padded
from harness.conformance.compare import distance
from harness.conformance.findings import BrokenError, shown
from harness.conformance.subject import Slopes, Subject
from harness.contracts.logprobs import LogProbs, PairTokens

TINY = 1e-9
"""What a log-ratio of exactly 0 is moved by, in nats."""


def finite(subject: Subject) -> None:
    """Losses, gradients and memory are finite at the edges, in both precisions."""
    for drawn in extremes():
        for case in _with_memories(subject, drawn):
            for dtype in (torch.float64, torch.float32):
                narrow = cast(case, dtype, dtype)
                weights = torch.full((case.pairs,), 1 / case.pairs)
                words = f"{case.words}, {'fp64' if dtype == torch.float64 else 'fp32'}"
                _all_finite(subject.slopes(narrow, weights), words)


def _with_memories(subject: Subject, case: Case) -> list[Case]:
    found = list(subject.at_any_time(case))
    if subject.initial is not None:
        words = f"{case.words}, after a step in which nothing varied"
        found.append(replace(case, state=subject.stuck, words=words))
    return found


def _all_finite(slopes: Slopes, words: str) -> None:
    named = {"losses": slopes.losses} | {f"next state `{k}`": v for k, v in slopes.state.items()}
    for name, sides in slopes.by.items():
        for side, found in zip(("chosen", "rejected"), sides, strict=True):
            named[f"gradient by `{name}` of the {side} answers"] = found
    for name, numbers in named.items():
        if not bool(numbers.isfinite().all()):
            bad = numbers[~numbers.isfinite()]
            raise BrokenError(f"finite {name} ({words})",
                              f"{bad.numel()} of {numbers.numel()} not: {shown(bad)}")  # fmt: skip


def padding(subject: Subject) -> None:
    """What stands outside the mask, and how many columns there are, changes nothing."""
    for drawn in (draw(6, 60), draw(5, 61, apart=0.7)):
        for case in subject.at_any_time(drawn):
            bare = subject.slopes(case)
            for chosen, rejected in (((0, 3), (0, 1)), ((2, 0), (1, 0)), ((1, 2), (3, 9))):
                wide = subject.slopes(padded(case, chosen, rejected))
                words = (
                    f"columns of padding added: chosen {chosen[0]} on the left and {chosen[1]} on "
                    f"the right, rejected {rejected[0]} and {rejected[1]}"
                )
                _close(bare.losses, wide.losses, f"the same losses with {words}")
                _close_gradients(case, bare, wide, (chosen[0], rejected[0]), words)


def _close_gradients(
    case: Case, bare: Slopes, wide: Slopes, left: tuple[int, int], words: str
) -> None:
    masks = (case.policy.chosen.mask, case.policy.rejected.mask)
    for name in bare.by:
        for mask, one, whole, first in zip(masks, bare.by[name], wide.by[name], left, strict=True):
            rest = whole.clone()
            inside = rest[:, first : first + mask.shape[1]]
            found, expected = inside.where(mask, 0.0), one.where(mask, 0.0)
            _close(expected, found, f"the same gradient by `{name}` with {words}")
            inside.masked_fill_(mask, 0.0)
            if not bool((rest == 0).all()):
                raise BrokenError(f"a gradient by `{name}` of 0 outside the mask",
                                  shown(rest[rest != 0]))  # fmt: skip


def _close(one: Tensor, other: Tensor, expected: str, limit: float = 1e-6) -> None:
    if not distance(one, other) <= limit:
        raise BrokenError(f"{expected}: {shown(one)}", shown(other))


def lengths(subject: Subject) -> None:
    """A token whose log-ratio or log-prob is exactly 0 counts like any other."""
    mixed = draw(6, 70, apart=0.5, lengths=(4, 12))
    for words, exact, moved in (_equal_tokens(mixed), _sure_tokens(mixed)):
        for at_zero, beside in zip(
            subject.at_any_time(exact), subject.at_any_time(moved), strict=True
        ):
            one, other = subject(at_zero).losses, subject(beside).losses
            _close(one, other, f"losses that do not jump where {words}")


def _equal_tokens(case: Case) -> tuple[str, Case, Case]:
    """Every second token has a log-ratio and a divergence of 0; or of next to 0."""
    zeros = [_every_second(side) for side in (case.policy.chosen, case.policy.rejected)]

    def at(amount: float) -> Case:
        policy, reference = case.policy, case.reference
        sides = zip(zeros, (policy.chosen, policy.rejected),
                    (reference.chosen, reference.rejected), strict=True)  # fmt: skip
        mixed = [LogProbs(torch.where(z, p.values - amount, r.values), p.mask) for z, p, r in sides]
        drift = case.inputs["divergence"]
        parts = zip(zeros, (drift.chosen, drift.rejected), strict=True)
        drifts = [LogProbs(torch.where(z, amount, d.values), d.mask) for z, d in parts]
        return case.having(reference=PairTokens(*mixed), divergence=PairTokens(*drifts))

    return "the log-ratio of a token is exactly 0", at(0.0), at(TINY)


def _sure_tokens(case: Case) -> tuple[str, Case, Case]:
    """Every second token has a log-prob of 0 under the policy; or of next to 0."""

    def at(amount: float) -> Case:
        sides = (case.policy.chosen, case.policy.rejected)
        values = [torch.where(_every_second(side), -amount, side.values) for side in sides]
        sure = [LogProbs(v, side.mask) for v, side in zip(values, sides, strict=True)]
        return case.having(policy=PairTokens(*sure))

    return "the log-prob of a token is exactly 0", at(0.0), at(TINY)


def _every_second(side: LogProbs) -> Tensor:
    return side.mask & (torch.arange(side.mask.shape[1]) % 2 == 0)


def bf16(subject: Subject) -> None:
    """Narrow log-probs are summed in fp32: as the same numbers in fp64, but for fp32's rounding."""
    # bf16 counts to 256 and then in steps of two; the sums of such answers lose some of fp32, too.
    long = replace(draw(4, 82, lengths=(257, 401)), words="answers of 400 tokens")
    for drawn, limit in ((draw(6, 80), 2e-5), (draw(6, 81, apart=0.5), 2e-5), (long, 3e-4)):
        for case in subject.at_any_time(drawn):
            narrow = cast(case, torch.bfloat16, torch.float32)
            wide = cast(cast(narrow, torch.float64, torch.float32), torch.float64, torch.float64)
            found, expected = subject.slopes(narrow), subject.slopes(wide)
            if found.losses.dtype != torch.float32:
                raise BrokenError("losses in fp32 for log-probs in bf16", str(found.losses.dtype))
            words = f"the losses of the same numbers in fp64, to {limit:g}, for log-probs in bf16"
            _close(expected.losses, found.losses, words, limit)
            _all_finite(found, f"{case.words}, log-probs in bf16")
