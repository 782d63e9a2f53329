"""What a person reads: sentences, numbers and tables on a terminal."""

from __future__ import annotations

import io
import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from harness.board.axes import axis
from harness.board.columns import ranking
from harness.board.compute import build
from harness.board.numbers import fixed, flops, p_phrase, p_value, places, quantity, signed, stored
from harness.board.screen import show
from harness.board.terminal import render
from harness.board.text import shortened
from harness.board.verdict import verdict
from harness.scores import Run
from harness.visible import visible

DIVERGED = Run("sentiment-high", "madpo", "default", 1, "diverged", "loss became NaN at step 12")


def test_four_methods_fit_into_a_hundred_columns_side_by_side(make):
    text = render(build(make()))
    assert max(map(len, text.splitlines())) <= 100
    head = next(line for line in text.splitlines() if line.strip().startswith("rank"))
    assert " ".join(head.split()) == "rank method reward ±95 % ties minus dpo [95 %] p p Holm"
    assert text.count("alphadpo  ") == 2


@pytest.mark.parametrize("width", [50, 72])
def test_a_narrow_terminal_loses_no_cell(make, width):
    board = build(make())
    wide, narrow = render(board), render(board, width=width)
    assert max(map(len, narrow.splitlines())) <= width
    words = [set(text.replace("-", " ").replace("=", " ").split()) for text in (wide, narrow)]
    assert words[0] <= words[1]


def test_a_table_shows_the_numbers_of_the_board(make):
    task = build(make()).tasks[0]
    cells = {column.title: column.cells for column in ranking(task)}
    for i, row in enumerate(task.rows):
        mean = row.measures[0].estimate
        value, half = map(float, cells["reward ±95 %"][i].split(" ±"))
        assert [value, half] == pytest.approx([mean.value, mean.high - mean.value], abs=6e-4)
        if row.gap is None:
            assert (cells["minus dpo [95 %]"][i], cells["p"][i], cells["p Holm"][i]) == ("-",) * 3
            continue
        gap = row.gap.estimate
        found = [float(x) for x in re.findall(r"[-+]?\d[\d.]*", cells["minus dpo [95 %]"][i])]
        assert found == pytest.approx([gap.value, gap.low, gap.high], abs=6e-4)
        assert cells["p"][i] == p_value(gap.p)
        assert cells["p Holm"][i] == p_value(row.gap.p_holm)


def test_a_board_opens_with_what_it_claims(make):
    said = verdict(build(make(seeds=5)).tasks[0])
    assert said[0] == "alphadpo is first of 5 rows: better than every other row."
    assert said[1].startswith("alphadpo beats dpo by 0.")
    assert said[1].endswith("after Holm.")
    assert said[2].startswith("simpo falls short of dpo by 0.")
    assert said[3].startswith("dpo beats the untrained reference by 1.")
    assert said[4].startswith("madpo and dpo cannot be told apart: difference ")


def test_many_rows_with_one_outcome_share_a_sentence(make):
    better = {f"m{i}": 1.5 + i / 10 for i in range(6)}
    said = verdict(build(make({"dpo": 0.0, **better}, seeds=5)).tasks[0])
    assert "m5, m4, m3, m2, m1 and m0 beat dpo." in said


def test_a_rank_that_holm_does_not_confirm_is_said_to_be_one(make):
    board = build(make(seeds=5))
    task = board.tasks[0]
    row = task.rows[0]
    doubtful = replace(row, gap=replace(row.gap, p_holm=0.06))
    said = verdict(replace(task, rows=(doubtful, *task.rows[1:])))
    assert any("ahead of dpo in the ranking, yet not after Holm" in s for s in said)


def test_a_row_that_is_not_ranked_stands_below_with_its_reason(make):
    text = render(build(make(runs=[DIVERGED], notes=("Judged by a rule.",))))
    assert "- madpo: seed 1 diverged: loss became NaN at step 12" in text
    assert "* Not ranked, for the reasons below: madpo." in text
    assert not any(line.split()[1:2] == ["madpo"] and "±" in line for line in text.splitlines())
    assert "Note: Judged by a rule." in text


def test_one_seed_is_said_in_words_and_ranks_nothing(make):
    text = render(build(make(seeds=1)))
    assert "no order of methods is claimed" in text
    assert "Holm" not in text
    assert "ties" not in text
    assert "  -  alphadpo" in text


def test_the_footer_says_what_could_have_been_seen(make):
    board = build(make())
    largest = max(pair.estimate.mde for pair in board.tasks[0].pairs)
    text = " ".join(render(board).split())
    found = text.split("80 % power with 3 seeds and 200 prompts: ")[1].split()[0]
    assert float(found) == pytest.approx(largest, rel=0.05)
    assert "Holm over 4 differences to dpo; Benjamini-Hochberg over 10 pairs." in text
    assert "Budget: epochs 2, learning_rate 0.001, pairs 1024." in text


def test_a_pipe_gets_plain_text_and_a_terminal_the_same_cells(make):
    board = build(make(runs=[DIVERGED]))
    pipe, terminal = io.StringIO(), io.StringIO()
    show(board, Console(file=pipe))
    assert pipe.getvalue() == render(board)
    show(board, Console(file=terminal, force_terminal=True, width=100, color_system=None))
    assert "─" in terminal.getvalue()
    words = set(terminal.getvalue().split())
    assert {"alphadpo", "±95", "p", "Holm", "diverged:", "1.2e12"} <= words


def test_a_terminal_obeys_no_name(make):
    name = "[red]x[/red]\x1b[2J\u202e"
    board = build(make({"dpo": 0.5, name: 0.9}, notes=(name,)))
    terminal = io.StringIO()
    show(board, Console(file=terminal, force_terminal=True, width=100, color_system=None))
    for text in (terminal.getvalue(), render(board)):
        assert "[red]x[/red]\\x1b[2J\\u202e" in text
        assert "\x1b[2J" not in text


@given(st.text())
def test_visible_text_is_one_line_that_prints(text):
    assert visible(text).isprintable() or "\u00a0" in text or not visible(text).isascii()
    assert len(visible(text).splitlines()) <= 1
    assert visible(visible(text)) == visible(text)


def test_a_traceback_is_shortened_to_a_line():
    assert shortened("a\n  b\tc") == "a b c"
    assert len(shortened("x" * 1000)) == 300


@pytest.mark.parametrize(
    ("errors", "decimals"),
    [([0.1], 2), ([0.0123], 3), ([3.2], 1), ([45.0], 0), ([], 3), ([0.0], 3), ([1e-9], 6),
     ([0.001, 0.1, 0.1], 2), ([math.nan, 0.1], 2)],
)  # fmt: skip
def test_a_column_has_two_digits_of_its_usual_standard_error(errors, decimals):
    assert places(errors) == decimals


def test_numbers_read_as_people_write_them():
    assert [fixed(-0.001, 2), fixed(-1.5, 1)] == ["0.00", "-1.5"]
    assert [signed(0.25, 2), signed(-0.25, 2), signed(0.001, 2)] == ["+0.25", "-0.25", "0.00"]
    assert [p_value(p) for p in (None, 0.0001, 0.0042, 0.049, 0.12, 1.0)] == [
        "-", "<0.001", "0.004", "0.049", "0.12", "1.00"
    ]  # fmt: skip
    assert [p_phrase(0.004), p_phrase(1e-9)] == ["p = 0.004", "p < 0.001"]
    assert [quantity(n) for n in (64, 123_456, 1_234_567, 2.5e9)] == [
        "64", "123,456", "1.23M", "2.5G"
    ]  # fmt: skip
    assert [flops(n) for n in (0, 1.23e12, 9.96e9)] == ["0", "1.2e12", "1.0e10"]
    assert [stored(1 / 3), stored(None), stored(math.inf)] == [0.3333333333, None, None]


@given(st.lists(st.floats(-1e6, 1e6), min_size=1), st.floats(0, 500), st.floats(600, 900))
def test_an_axis_holds_its_values_and_its_ticks(values, start, end):
    drawn = axis(values, start, end)
    for value in (*values, *drawn.ticks):
        assert start - 1e-6 <= drawn.at(value) <= end + 1e-6
    assert 2 <= len(drawn.ticks) <= 10
    assert len({fixed(t, drawn.decimals) for t in drawn.ticks}) == len(drawn.ticks)
