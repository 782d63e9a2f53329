"""What an order of names may claim: groups that cannot be told apart, and ranks as intervals."""

from __future__ import annotations

import string
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, combinations


def tie_groups(order: Sequence[str], different: Callable[[str, str], bool]) -> dict[str, str]:
    """Compact letter display: two names share a letter exactly if they are not different.

    Being told apart is not transitive, so a name may carry several letters: with "a", "ab", "b"
    only the first and the last differ. Letters are given from the head of `order`.

    Args:
        order: names, best first.
        different: asked once for each pair, the name that stands first in `order` coming first.

    Raises:
        ValueError: a name stands twice.
    """
    _distinct(order)
    alike = [
        (i, j) for i, j in combinations(range(len(order)), 2) if not different(order[i], order[j])
    ]
    groups = _cliques(len(order), frozenset(alike))
    letters = dict(zip(groups, _alphabet(), strict=False))
    return {
        name: "".join(letter for group, letter in letters.items() if i in group)
        for i, name in enumerate(order)
    }


def _cliques(size: int, alike: frozenset[tuple[int, int]]) -> list[frozenset[int]]:
    """Sets of places, all alike within, that cover every place and every alike pair.

    Grown one at a time from the first pair that is not covered yet. All maximal sets would do as
    well, but there can be exponentially many of them.
    """
    covered: set[tuple[int, int]] = set()
    groups: list[frozenset[int]] = []
    for seed in [(i, j) for i in range(size) for j in range(i, size)]:
        alone = seed[0] == seed[1]
        if seed in covered or not (alone or seed in alike):
            continue
        group = _grown(set(seed), size, alike)
        covered |= {(i, j) for i in group for j in group if i <= j}
        groups.append(group)
    return sorted(groups, key=sorted)


def _grown(group: set[int], size: int, alike: frozenset[tuple[int, int]]) -> frozenset[int]:
    for new in range(size):
        if all(new == old or (min(new, old), max(new, old)) in alike for old in group):
            group.add(new)
    return frozenset(group)


def _alphabet() -> Iterator[str]:
    others = filter(str.isalpha, map(chr, range(0x100, sys.maxunicode)))
    return chain(string.ascii_letters, others)


def rank_intervals(
    names: Sequence[str], better: Callable[[str, str], bool]
) -> dict[str, tuple[int, int]]:
    """First and last rank that each name may hold, counted from 1.

    The first is one behind all names that are better, the last just before all that are worse.

    Args:
        names: in any order.
        better: whether the first name is significantly better than the second.

    Raises:
        ValueError: a name stands twice, or two names are each better than the other.
    """
    _distinct(names)
    ahead = {(x, y) for x in names for y in names if x != y and better(x, y)}
    for x, y in ahead:
        if (y, x) in ahead:
            raise ValueError(f"'{x}' and '{y}' cannot each be better than the other")
    return {
        name: (
            1 + sum(worse == name for _, worse in ahead),
            len(names) - sum(winner == name for winner, _ in ahead),
        )
        for name in names
    }


def _distinct(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise ValueError(f"'{twice[0]}' stands twice: a name has one row")
