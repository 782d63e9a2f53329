"""Inputs of losses, drawn from seeded generators: everything of the vocabulary at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from harness.contracts.logprobs import LogProbs, PairLogProbs, PairTokens
from harness.contracts.method import State

Columns: TypeAlias = tuple[int, int]
"""Numbers of columns, to the left and to the right."""

FAR = 1e4
"""The log-ratio in nats at which a loss must still be finite."""


@dataclass(frozen=True)
class Case:
    """One call's inputs.

    Attributes:
        inputs: by the names of the vocabulary; all but `state` and `rng`.
        words: what is special about them, for messages.
        state: what the method remembers; None is its initial state.
        seed: of the generator that is made for each call.
    """

    inputs: Mapping[str, Any]
    words: str
    state: State | None = None
    seed: int = 0

    @property
    def policy(self) -> PairLogProbs:
        """Log-probs of the policy."""
        found: PairLogProbs = self.inputs["policy"]
        return found

    @property
    def reference(self) -> PairLogProbs:
        """Log-probs of the reference."""
        found: PairLogProbs = self.inputs["reference"]
        return found

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return len(self.policy.chosen.mask)

    def having(self, words: str = "", **inputs: Any) -> Case:
        """The same case with some inputs replaced; `words` are added to what is said of it."""
        told = ", ".join(filter(None, (self.words, words)))
        return replace(self, inputs={**self.inputs, **inputs}, words=told)


def draw(
    pairs: int = 6, seed: int = 0, *, apart: float = 0.1, lengths: tuple[int, int] = (1, 12)
) -> Case:
    """Random inputs as training has them; chosen and rejected answers of different lengths.

    Args:
        pairs: their number.
        seed: of everything in the case.
        apart: standard deviation of the log-ratio of a token, in nats.
        lengths: shortest and longest answer, in tokens.
    """
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, dtype=torch.float64)

    masks = []
    for _ in range(2):
        length = torch.randint(lengths[0], lengths[1] + 1, (pairs, 1), generator=g)
        masks.append(torch.arange(int(length.max())) < length)

    def tokens(number: Callable[..., Tensor]) -> PairTokens:
        return PairTokens(*(LogProbs(number(*m.shape).masked_fill(~m, 0.0), m) for m in masks))

    policy = tokens(lambda *shape: -0.02 + 1.3 * uniform(*shape).log())
    reference = _each(policy, lambda v: (v + apart * normal(*v.shape)).clamp_max(-1e-3))
    rewards = (0.7 + 1.5 * normal(pairs), 1.5 * normal(pairs))
    # A mean above zero and one below it: some losses read it through max(0, .).
    drift = 0.5 if seed % 2 == 0 else -0.5
    inputs = {
        "policy": policy,
        "reference": reference,
        "margin": rewards[0] - rewards[1],
        "rewards": rewards,
        "divergence": tokens(lambda *shape: 0.3 * uniform(*shape)),
        "mismatched": (drift + 0.4 * normal(pairs), drift + 0.4 * normal(pairs)),
        "confidence": tokens(lambda *shape: uniform(*shape).log()),
        "entropy": tokens(lambda *shape: 0.05 + 0.9 * uniform(*shape)),
    }
    return Case(inputs, f"random inputs, log-ratios of {apart:g} per token", seed=seed)


def at_reference(case: Case) -> Case:
    """The same answers before the first step: the policy is the reference, to the bit."""
    zero = torch.zeros_like(case.inputs["margin"])
    return replace(
        case.having(
            reference=_each(case.policy, Tensor.clone),
            divergence=_each(case.inputs["divergence"], torch.zeros_like),
            mismatched=(zero, zero.clone()),
        ),
        words="the policy is the reference",
    )


def rows(case: Case, index: Sequence[int]) -> Case:
    """Some pairs of a case, in this order."""
    chosen = torch.tensor(list(index))
    return _map(case, lambda side: _rows(side, chosen), lambda column: column[chosen])


def padded(case: Case, chosen: Columns, rejected: Columns) -> Case:
    """The same numbers with columns added that are outside the mask; NaN and -inf stand there.

    Args:
        case: what to pad.
        chosen: columns to the left and to the right of the chosen answers.
        rejected: likewise; other numbers, for a loss that subtracts one width from the other.
    """

    def pad(side: LogProbs, columns: Columns) -> LogProbs:
        mask = torch.nn.functional.pad(side.mask, columns)
        values = torch.nn.functional.pad(side.values, columns)
        rubbish = torch.full_like(values, torch.nan)
        rubbish[:, ::2] = -torch.inf
        return LogProbs(torch.where(mask, values, rubbish), mask)

    inputs = {
        name: PairTokens(pad(value.chosen, chosen), pad(value.rejected, rejected))
        if isinstance(value, PairTokens) else value
        for name, value in case.inputs.items()
    }  # fmt: skip
    return replace(case, inputs=inputs)


def renumbered(case: Case, seed: int, which: Sequence[int]) -> Case:
    """Other numbers in some of the pairs; the lengths of all answers stay."""
    other = draw(case.pairs, seed, apart=1.0)
    index = torch.tensor(list(which))

    def mixed(one: LogProbs, two: LogProbs) -> LogProbs:
        columns = torch.arange(one.mask.shape[1]) % two.mask.shape[1]
        # Where the other answer is shorter, its first token stands in for the rest.
        numbers = torch.where(two.mask[:, columns], two.values[:, columns], two.values[:, :1])
        values = one.values.index_copy(0, index, numbers[index])
        return LogProbs(values.masked_fill(~one.mask, 0.0), one.mask)

    def mix(one: Any, two: Any) -> Any:
        if isinstance(one, PairTokens):
            return PairTokens(mixed(one.chosen, two.chosen), mixed(one.rejected, two.rejected))
        if isinstance(one, tuple):
            return tuple(mix(a, b) for a, b in zip(one, two, strict=True))
        return one.index_copy(0, index, two[index])

    inputs = {name: mix(value, other.inputs[name]) for name, value in case.inputs.items()}
    return replace(case, inputs=inputs)


def cast(case: Case, tokens: torch.dtype, columns: torch.dtype) -> Case:
    """The same numbers in other precisions: per token, and per pair."""
    return _map(
        case, lambda side: LogProbs(side.values.to(tokens), side.mask), lambda c: c.to(columns)
    )


def shifted(case: Case, chosen: float, rejected: float) -> Case:
    """Log-ratios of whole answers moved by so many nats; a log-prob stays below zero.

    An answer that is to be likelier under the policy becomes less likely under the reference.
    """
    by = {"chosen": chosen, "rejected": rejected}
    policy, reference = {}, {}
    for name, amount in by.items():
        p, r = getattr(case.policy, name), getattr(case.reference, name)
        step = (amount / p.length).unsqueeze(-1)
        policy[name] = LogProbs((p.values + step.clamp_max(0)).masked_fill(~p.mask, 0.0), p.mask)
        reference[name] = LogProbs((r.values - step.clamp_min(0)).masked_fill(~r.mask, 0.0), r.mask)
    words = f"log-ratios of answers moved by {chosen:+g} and {rejected:+g} nats"
    return case.having(words, policy=PairTokens(**policy), reference=PairTokens(**reference))


def extremes() -> list[Case]:
    """Inputs at which exponentials overflow, logarithms meet zero and spreads vanish."""
    plain, wide = draw(4, 11), draw(4, 12, apart=0.7)
    start = at_reference(plain)
    same = rows(wide, [0, 0, 0, 0])
    zero = torch.zeros_like(plain.inputs["margin"])
    far = zero + FAR * torch.tensor([1.0, -1.0, 0.1, -0.1], dtype=zero.dtype)
    found = [
        start,
        replace(rows(start, [1, 1, 1]), words="identical pairs, the policy is the reference"),
        replace(same, words="identical pairs"),
        replace(rows(wide, [2]), words="one pair"),
        replace(rows(start, [2]), words="one pair, the policy is the reference"),
        replace(draw(4, 13, apart=1e-7), words="the policy is the reference but for rounding"),
        replace(draw(3, 14, lengths=(150, 200)), words="answers of 200 tokens"),
        plain.having("margins and rewards of 0", margin=zero, rewards=(zero, zero.clone())),
        plain.having("margins of 1e4", margin=far, rewards=(far, zero)),
        plain.having("entropy 0", entropy=_each(plain.inputs["entropy"], torch.zeros_like)),
        plain.having("entropy 1", entropy=_each(plain.inputs["entropy"], torch.ones_like)),
        replace(_certain(plain), words="tokens of probability one"),
    ]
    ends = [(FAR, -FAR), (-FAR, FAR), (FAR, FAR), (-FAR, -FAR)]
    found += [shifted(plain, *end) for end in ends]
    tokens = 12  # 1e4 nats at each of them
    return found + [shifted(plain, tokens * a, tokens * b) for a, b in ends[:2]]


def _certain(case: Case) -> Case:
    """Every second pair's answers have probability one: fp32 rounds a sure token to that."""
    sure = torch.arange(case.pairs)[:, None] % 2 == 0
    policy, reference = (_each(p, lambda v: v.masked_fill(sure, 0.0))
                         for p in (case.policy, case.reference))  # fmt: skip
    return case.having(policy=policy, reference=reference)


def _map(
    case: Case, per_token: Callable[[LogProbs], LogProbs], per_pair: Callable[[Tensor], Tensor]
) -> Case:
    def one(value: Any) -> Any:
        if isinstance(value, PairLogProbs):
            return PairLogProbs(per_token(value.chosen), per_token(value.rejected))
        if isinstance(value, tuple):
            return tuple(per_pair(column) for column in value)
        return per_pair(value)

    return replace(case, inputs={name: one(value) for name, value in case.inputs.items()})


def _each(pair: PairTokens, change: Callable[[Tensor], Tensor]) -> PairTokens:
    sides = (pair.chosen, pair.rejected)
    return PairTokens(
        *(LogProbs(change(s.values).masked_fill(~s.mask, 0.0), s.mask) for s in sides)
    )


def _rows(side: LogProbs, index: Tensor) -> LogProbs:
    return LogProbs(side.values[index], side.mask[index])
