"""Whether two results are the same: to the bit, or to within rounding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

ROUNDING = 1e-9
"""Relative; sums in another order differ by some 1e-15 of their terms."""


def distance(one: Tensor, other: Tensor) -> float:
    """Largest difference relative to 1 + size; infinite where just one is finite, or in shape."""
    if one.shape != other.shape:
        return float("inf")
    if not one.numel():
        return 0.0
    a, b = one.detach().double(), other.detach().double()
    apart = (a - b).abs() / (1 + torch.maximum(a.abs(), b.abs()))
    # Equal infinities, and NaN at the same place, are the same result.
    same = (a == b) | (a.isnan() & b.isnan())
    return float(apart.masked_fill(same, 0.0).nan_to_num(nan=float("inf")).max())


def differ(one: Tensor, other: Tensor) -> bool:
    """Whether they are apart by more than rounding, however small they are."""
    if one.shape != other.shape:
        return True
    a, b = one.detach().double(), other.detach().double()
    same = (a == b) | (a.isnan() & b.isnan())
    near = (a - b).abs() <= ROUNDING * torch.maximum(a.abs(), b.abs()) + 1e-18
    return not bool((same | near).all())


def same_bits(one: Tensor, other: Tensor) -> bool:
    """Equal in kind, shape and every number; NaN equals NaN."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    return torch.equal(one.nan_to_num(nan=-1.2345e-20), other.nan_to_num(nan=-1.2345e-20))


def states_apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """Largest distance of two states; infinite where their names differ."""
    if set(one) != set(other):
        return float("inf")
    return max((distance(one[name], other[name]) for name in one), default=0.0)


def any_differ(one: Iterable[Tensor], other: Iterable[Tensor]) -> bool:
    """Whether any two of two equally long lists are apart."""
    return any(differ(a, b) for a, b in zip(one, other, strict=True))
