"""Whether two results are the same: to the bit, or to within rounding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

FAINT = 1e-7
"""What is a difference at all, of the largest number; a sum may lose half of its digits."""


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
    """Whether they are apart by more than rounding of the largest of them, small as it may be."""
    if one.shape != other.shape:
        return True
    a, b = one.detach().double(), other.detach().double()
    same = (a == b) | (a.isnan() & b.isnan())
    apart = (a - b).abs().masked_fill(same, 0.0)
    largest = torch.cat([a.flatten(), b.flatten()]).abs().nan_to_num(nan=0.0, posinf=0.0)
    return not bool((apart <= FAINT * largest.amax()).all()) if apart.numel() else False


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
