"""Counts of markdown: each mark alone, what code hides, and what an attacker sends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.judge.style import style


@pytest.mark.parametrize(
    ("text", "name", "count"),
    [
        ("# One\n## Two\n###### Six\n", "headers", 3),
        ("####### Seven", "headers", 0),
        ("#hashtag\n a # b\n  # indented", "headers", 0),
        ("1. one\n2. two\n  10. ten", "lists", 3),
        ("- a\n* b\n+ c\n\t- d", "lists", 4),
        ("1.5 is a number\n-5 too\n1) is not counted", "lists", 0),
        ("\n\n\n- after blank lines", "lists", 1),
        ("**a** and __b__ and **c d**", "bold", 3),
        ("*italic* ** not\nbold **", "bold", 0),
        ("****", "bold", 0),
        ("two  words\n", "words", 2),
        ("naïve\n", "characters", 6),
        ("", "words", 0),
    ],
)
def test_marks_are_counted(text: str, name: str, count: int) -> None:
    assert style(text)[name] == count


def test_marks_inside_code_are_not_counted_but_its_words_are() -> None:
    text = "# Title\n```python\n# comment\n- 1. x\n**a**\n```\n- item\n"
    assert style(text) == {
        "characters": len(text),
        "words": 12,
        "headers": 1,
        "lists": 1,
        "bold": 0,
    }


def test_code_that_is_never_closed_hides_nothing() -> None:
    assert style("```\n# Title\n- item")["headers"] == 1


@given(st.text(alphabet="#*_-+1. \n`a\t", max_size=80))
def test_lists_and_headers_are_those_of_a_reading_line_by_line(text: str) -> None:
    if "```" in text:
        return
    heads = lists = 0
    lines = text.split("\n")
    for i, line in enumerate(lines):
        full = line if i == len(lines) - 1 else line + "\n"
        sign = full.lstrip("#")
        heads += 1 <= len(full) - len(sign) <= 6 and sign[:1].isspace()
        item = full.lstrip(" \t")
        number = item.lstrip("1")
        ordered = number != item and number[:1] == "." and number[1:2].isspace()
        lists += ordered or (item[:1] in set("-*+") and item[1:2].isspace())
    found = style(text)
    assert (found["headers"], found["lists"]) == (heads, lists)


@pytest.mark.parametrize("text", ["\n" * 200_000, "**" * 100_000, "`" * 200_000, "__a" * 70_000])
def test_a_long_hostile_answer_is_counted_all_the_same(text: str) -> None:
    assert style(text)["characters"] == len(text)
