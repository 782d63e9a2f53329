"""Tie groups and rank intervals: the laws that make them honest."""

from __future__ import annotations

from itertools import combinations
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.stats.ties import rank_intervals, tie_groups

interval = st.tuples(st.floats(-10, 10), st.floats(0, 6)).map(lambda x: (x[0], x[0] + x[1]))


@st.composite
def ordered_intervals(draw: st.DrawFn) -> dict[str, tuple[float, float]]:
    """Names with intervals, highest first: different exactly if the intervals do not overlap."""
    found = sorted(draw(st.lists(interval, max_size=9)), reverse=True)
    return {f"m{i}": ends for i, ends in enumerate(found)}


@st.composite
def relations(draw: st.DrawFn) -> tuple[list[str], set[frozenset[str]]]:
    names = [f"m{i}" for i in range(draw(st.integers(0, 8)))]
    every = [frozenset(pair) for pair in combinations(names, 2)]
    chosen = draw(st.lists(st.sampled_from(every), unique=True)) if every else []
    return names, set(chosen)


def apart(found: dict[str, tuple[float, float]], x: str, y: str) -> bool:
    return found[x][0] > found[y][1] or found[y][0] > found[x][1]


def test_letters_of_a_chain() -> None:
    def different(x: str, y: str) -> bool:
        return abs(ord(x) - ord(y)) > 1

    assert tie_groups("pqrs", different) == {"p": "a", "q": "ab", "r": "bc", "s": "c"}


def test_letters_of_all_alike_and_of_none() -> None:
    names = ["x", "y", "z"]
    assert tie_groups(names, lambda x, y: False) == dict.fromkeys(names, "a")
    assert tie_groups(names, lambda x, y: True) == {"x": "a", "y": "b", "z": "c"}
    assert tie_groups([], lambda x, y: True) == {}


def test_letters_of_a_display_worked_by_hand() -> None:
    # Only p-t, p-s, q-t differ: groups p q r, q r s, r s t.
    different = {("p", "t"), ("p", "s"), ("q", "t")}
    found = tie_groups("pqrst", lambda x, y: (x, y) in different)
    assert found == {"p": "a", "q": "ab", "r": "abc", "s": "bc", "t": "c"}


@given(relations())
def test_two_names_share_a_letter_exactly_if_they_are_not_different(
    relation: tuple[list[str], set[frozenset[str]]],
) -> None:
    names, different = relation
    letters = tie_groups(names, lambda x, y: frozenset((x, y)) in different)
    assert all(letters[name] for name in names)
    for x, y in combinations(names, 2):
        assert bool(set(letters[x]) & set(letters[y])) == (frozenset((x, y)) not in different)


@given(ordered_intervals())
def test_groups_of_intervals_have_no_gap_and_no_letter_too_many(
    found: dict[str, tuple[float, float]],
) -> None:
    names = list(found)
    letters = tie_groups(names, lambda x, y: apart(found, x, y))
    for x, y in combinations(names, 2):
        assert bool(set(letters[x]) & set(letters[y])) != apart(found, x, y)
    held = [{n for n in names if letter in letters[n]} for letter in set("".join(letters.values()))]
    assert not any(one < other for one in held for other in held)
    firsts = [letters[n][0] for n in names]
    assert sorted(set("".join(letters.values()))) == sorted(
        set("abcdefghijklmnopqrstuvwxyz"[: len(held)])
    )
    assert not names or firsts[0] == "a"


def test_each_pair_is_asked_once_and_in_order() -> None:
    asked: list[tuple[str, str]] = []

    def different(x: str, y: str) -> bool:
        asked.append((x, y))
        return False

    tie_groups(["z", "a", "m"], different)
    assert asked == [("z", "a"), ("z", "m"), ("a", "m")]


def test_more_groups_than_the_alphabet_has_letters() -> None:
    names = [str(i) for i in range(70)]
    letters = tie_groups(names, lambda x, y: True)
    assert len(set(letters.values())) == 70
    assert all(len(x) == 1 and x.isalpha() for x in letters.values())


def test_forty_names_in_a_tangle_do_not_take_for_ever() -> None:
    # 13 triples, different within and alike across: 3^13 maximal groups for 702 alike pairs.
    names = [str(i) for i in range(39)]
    letters = tie_groups(names, lambda x, y: int(x) // 3 == int(y) // 3)
    assert len(set("".join(letters.values()))) <= 702


def test_rank_intervals_by_hand() -> None:
    ahead = {("p", "r"), ("p", "s"), ("q", "s")}
    found = rank_intervals("pqrs", lambda x, y: (x, y) in ahead)
    assert found == {"p": (1, 2), "q": (1, 3), "r": (2, 4), "s": (3, 4)}


def test_ranks_where_all_or_nothing_is_known() -> None:
    names = ["x", "y", "z"]
    assert rank_intervals(names, lambda x, y: False) == dict.fromkeys(names, (1, 3))
    assert rank_intervals(names, lambda x, y: x < y) == {"x": (1, 1), "y": (2, 2), "z": (3, 3)}
    assert rank_intervals([], lambda x, y: True) == {}


@given(ordered_intervals(), st.randoms(use_true_random=False))
def test_the_true_rank_lies_in_its_interval_and_order_does_not_matter(
    found: dict[str, tuple[float, float]], random: Random
) -> None:
    def better(x: str, y: str) -> bool:
        return found[x][0] > found[y][1]

    names = list(found)
    ranks = rank_intervals(names, better)
    shuffled = names.copy()
    random.shuffle(shuffled)
    assert rank_intervals(shuffled, better) == ranks
    for true_rank, name in enumerate(names, start=1):
        assert ranks[name][0] <= true_rank <= ranks[name][1]


def test_a_name_that_stands_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'x' stands twice"):
        tie_groups(["x", "y", "x"], lambda x, y: True)
    with pytest.raises(ValueError, match="'x' stands twice"):
        rank_intervals(["x", "x"], lambda x, y: True)


def test_two_names_cannot_each_be_better() -> None:
    with pytest.raises(ValueError, match="cannot each be better"):
        rank_intervals(["x", "y"], lambda x, y: True)
