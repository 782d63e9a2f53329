"""One difference: `harness compare A B`."""

from __future__ import annotations

from dataclasses import replace

import pandas as pd
import pytest

from harness.board.compare import compare, conclusion, render_comparison
from harness.board.compute import build
from harness.errors import RequestError
from harness.scores import Run, Scores
from harness.stats.difference import difference
from harness.stats.pooling import spread_of_differences

TASKS = ("sentiment-high", "sentiment-low")


def test_a_comparison_is_the_paired_difference_in_every_task_that_has_both(make):
    scores = make(tasks=TASKS)
    found = compare(scores, "alphadpo", "dpo")
    assert [c.task for c in found] == list(TASKS)
    for task, comparison in zip(TASKS, found, strict=True):
        a, b = (scores.matrix(task, "reward", m, "default").to_numpy() for m in ("alphadpo", "dpo"))
        rows = [r.label for r in next(t for t in build(scores).tasks if t.name == task).rows]
        several = [scores.matrix(task, "reward", m, "default").to_numpy() for m in rows]
        spread = spread_of_differences([table for table in several if len(table) > 1])
        assert comparison.gap == difference(a, b, spread=spread)
        assert comparison.gap != difference(a, b)
    assert compare(scores, "alphadpo", "dpo", "sentiment-low") == found[1:]


def test_a_comparison_says_who_wins_whatever_the_order_of_names(make):
    scores = make(seeds=5)
    one, other = (
        compare(scores, *names)[0] for names in (("alphadpo", "dpo"), ("dpo", "alphadpo"))
    )
    assert one.gap.value == pytest.approx(-other.gap.value)
    assert conclusion(one) == conclusion(other)
    assert conclusion(one).startswith("alphadpo beats dpo by 0.")


def test_what_cannot_be_told_apart_comes_with_what_it_would_take(make):
    text = render_comparison(compare(make(), "madpo", "dpo"))
    assert "madpo and dpo cannot be told apart: difference 0.0" in text
    assert "would be needed to see" in " ".join(text.split())
    assert "Minimum detectable effect at 80 % power" in text
    assert max(map(len, text.splitlines())) <= 100


def test_the_untrained_policy_stands_beside_every_seed(make):
    text = render_comparison(compare(make(), "reference", "dpo"))
    rows = [line.split() for line in text.splitlines() if line.split()[:1] in (["0"], ["1"], ["2"])]
    assert len(rows) == 3
    assert len({row[1] for row in rows}) == 1
    assert len({row[2] for row in rows}) == 3


def test_with_one_seed_a_comparison_claims_nothing(make):
    (found,) = compare(make(seeds=1), "alphadpo", "simpo")
    assert "one seed says nothing about the methods" in conclusion(found)
    assert "p = " not in render_comparison([found])
    assert "p < " not in render_comparison([found])


def test_a_row_that_is_not_complete_is_not_compared(make):
    run = Run("sentiment-high", "madpo", "default", 1, "diverged", "loss became NaN")
    (found,) = compare(make(runs=[run]), "madpo", "dpo")
    assert found.gap is None
    assert conclusion(found) == "No comparison: madpo: seed 1 diverged: loss became NaN."
    assert conclusion(found) in render_comparison([found])


def test_a_name_that_does_not_exist_names_the_nearest(make):
    with pytest.raises(RequestError, match="did you mean 'alphadpo'"):
        compare(make(), "alphapo", "dpo")
    with pytest.raises(RequestError, match="did you mean 'sentiment-high'"):
        compare(make(), "madpo", "dpo", "sentiment-hihg")
    with pytest.raises(RequestError, match="itself"):
        compare(make(), "dpo", "dpo")


def test_two_rows_of_different_tasks_are_not_compared(make):
    scores = make(tasks=TASKS)
    keep = {("sentiment-high", "simpo"), ("sentiment-low", "madpo")}
    runs = tuple(
        r for r in scores.header.runs
        if r.method not in ("simpo", "madpo") or (r.task, r.method) in keep
    )  # fmt: skip
    f = scores.frame
    pairs = pd.Series(list(zip(f.task, f.method, strict=True)), index=f.index)
    frame = f[~f.method.isin(["simpo", "madpo"]) | pairs.isin(list(keep))]
    with pytest.raises(RequestError, match="no task has both"):
        compare(Scores(replace(scores.header, runs=runs), frame), "simpo", "madpo")


def test_a_method_with_several_settings_must_be_named_with_them(make):
    scores = make()
    rows = scores.frame[scores.frame.method == "dpo"].assign(settings="beta=0.5")
    several = Scores(scores.header, pd.concat([scores.frame, rows]))
    with pytest.raises(RequestError, match=r"'dpo \(default\)', 'dpo \(beta=0.5\)'"):
        compare(several, "dpo", "simpo")
    (found,) = compare(several, "dpo (beta=0.5)", "simpo")
    assert (found.a, found.b) == ("dpo (beta=0.5)", "simpo")
