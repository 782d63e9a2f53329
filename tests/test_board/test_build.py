"""What a board claims, against the effects that the scores were made with."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.multitest import multipletests

from harness.board.compute import build
from harness.board.verdict import verdict
from harness.contracts.task import Metric
from harness.errors import DataError
from harness.scores import Run, Scores, read_scores, write_scores
from harness.stats.difference import difference
from harness.stats.pooling import spread_of_differences, spread_of_means
from harness.stats.power import seeds_needed

TASK, SETTINGS = "sentiment-high", "default"
DIVERGED = Run(TASK, "madpo", SETTINGS, 1, "diverged", "loss became NaN at step 12")


def only(scores):
    board = build(scores)
    assert len(board.tasks) == 1
    return board.tasks[0]


def by_label(task):
    return {row.label: row for row in task.rows}


def values(scores, method, metric="reward"):
    return scores.matrix(TASK, metric, method, SETTINGS).to_numpy()


def without(scores, mask):
    return Scores(scores.header, scores.frame[~mask])


def test_the_order_that_is_true_is_found_and_equal_methods_share_a_place(make):
    task = only(make(seeds=5))
    assert task.rows[0].label == "alphadpo"
    ranks = {row.label: row.ranks for row in task.rows}
    assert ranks == {
        "alphadpo": (1, 1), "madpo": (2, 3), "dpo": (2, 3), "simpo": (4, 4), "reference": (5, 5)
    }  # fmt: skip
    ties = {row.label: row.ties for row in task.rows}
    assert ties["dpo"] == ties["madpo"]
    assert len(set(ties.values())) == 4


def test_no_order_is_claimed_between_methods_that_are_alike(make):
    task = only(make(dict.fromkeys(("dpo", "ipo", "kto", "simpo"), 0.5)))
    assert {row.ranks for row in task.rows} == {(1, 4)}
    assert {row.ties for row in task.rows} == {"a"}
    assert verdict(task)[0].startswith("First place is open: ")


def test_a_difference_is_the_row_minus_the_reference_method(make):
    scores = make()
    task = only(scores)
    reference = values(scores, "dpo").mean()
    for row in task.rows:
        if row.label == "dpo":
            assert row.gap is None
        else:
            own = values(scores, row.label).mean()
            assert row.gap.estimate.value == pytest.approx(own - reference)
    for pair in task.pairs:
        gap = values(scores, pair.a).mean() - values(scores, pair.b).mean()
        assert pair.estimate.value == pytest.approx(gap)
        assert pair.better in ("", pair.a if gap > 0 else pair.b)


def test_holm_covers_every_row_against_the_reference_method_and_nothing_else(make):
    scores = make({"reference": 0.42, "dpo": 0.5, "madpo": 0.6, "alphadpo": 0.62, "simpo": 0.45})
    base = np.repeat(values(scores, "reference"), 3, axis=0)
    dpo = values(scores, "dpo")
    trained = [values(scores, m) for m in ("dpo", "madpo", "alphadpo", "simpo")]
    among, fixed = spread_of_differences(trained), spread_of_means(trained)
    raw = {
        m: difference(values(scores, m), dpo, spread=among).p
        for m in ("madpo", "alphadpo", "simpo")
    }
    raw["reference"] = difference(base, dpo, spread=fixed).p
    adjusted = multipletests(list(raw.values()), method="holm")[1]
    rows = by_label(only(scores))
    for method, p in zip(raw, adjusted, strict=True):
        assert rows[method].gap.p_holm == pytest.approx(p)
    assert len(set(adjusted)) > 1


def test_beats_is_said_only_where_both_families_of_tests_say_so(make):
    task = only(make(seeds=5))
    assert any(line.startswith("alphadpo beats dpo") for line in verdict(task))
    pairs = tuple(replace(p, better="") if "dpo" in (p.a, p.b) else p for p in task.pairs)
    said = verdict(replace(task, pairs=pairs))
    assert not any("beats dpo" in line or "falls short of dpo" in line for line in said)
    assert any(line.startswith("alphadpo and dpo cannot be told apart") for line in said)


def test_benjamini_and_hochberg_cover_all_pairs(make):
    task = only(make({"reference": 0.42, "dpo": 0.5, "madpo": 0.6, "alphadpo": 0.62}))
    assert len(task.pairs) == 6
    raw = [pair.estimate.p for pair in task.pairs]
    adjusted = multipletests(raw, method="fdr_bh")[1]
    assert [pair.p_bh for pair in task.pairs] == pytest.approx(list(adjusted))
    assert [bool(pair.better) for pair in task.pairs] == [bool(p < 0.05) for p in adjusted]


def test_where_lower_is_better_the_lowest_ranks_first(make):
    metric = Metric("errors", "", "lower", "Mistakes in an answer.")
    task = only(make(seeds=5, metrics=(metric,)))
    assert [row.label for row in task.rows][:2] == ["reference", "simpo"]
    assert task.rows[0].ranks == (1, 1)
    said = verdict(task)
    assert any(s.startswith("simpo beats dpo by 0.") for s in said)
    assert any(s.startswith("alphadpo falls short of dpo by 0.") for s in said)


@pytest.mark.parametrize("status", ["failed", "diverged"])
def test_a_run_that_went_wrong_is_shown_and_counts_nowhere(make, status):
    task = only(make(runs=[replace(DIVERGED, status=status)]))
    assert "madpo" not in by_label(task)
    assert [row.label for row in task.unranked] == ["madpo"]
    assert task.unranked[0].reasons == (f"seed 1 {status}: loss became NaN at step 12",)
    assert not any("madpo" in (pair.a, pair.b) for pair in task.pairs)
    assert {row.ranks[1] for row in task.rows} == {1, 2, 3, 4}


def test_a_row_that_is_not_ranked_changes_no_p_of_another(make):
    whole = make()
    run = replace(DIVERGED, seed=2)
    runs = tuple(run if (r.method, r.seed) == ("madpo", 2) else r for r in whole.header.runs)
    frame = whole.frame
    parted = only(Scores(replace(whole.header, runs=runs), frame))
    never = replace(whole.header, runs=tuple(r for r in runs if r.method != "madpo"))
    absent = only(Scores(never, frame[frame.method != "madpo"]))
    assert parted.rows == absent.rows
    assert parted.pairs == absent.pairs


def test_a_row_that_lacks_a_prompt_is_not_ranked(make):
    scores = make()
    f = scores.frame
    task = only(without(scores, (f.method == "simpo") & (f.seed == 2) & (f.prompt_id == "p0007")))
    assert [r.reasons for r in task.unranked] == [("seed 2 without reward for 1 of 200 prompts",)]
    assert "simpo" not in by_label(task)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_a_value_that_is_no_number_is_a_missing_one(make, value):
    scores = make()
    f = scores.frame.copy()
    f.loc[(f.method == "simpo") & (f.seed == 0) & (f.prompt_id == "p0001"), "value"] = value
    task = only(Scores(scores.header, f))
    assert task.unranked[0].reasons == ("seed 0 without reward for 1 of 200 prompts",)
    assert np.isfinite(task.unranked[0].mean)


def test_a_row_that_lacks_a_seed_is_not_ranked(make):
    scores = make()
    f = scores.frame
    lost = without(scores, (f.method == "simpo") & (f.seed == 1))
    assert only(lost).unranked[0].reasons == ("seed 1 without scores",)
    runs = tuple(r for r in scores.header.runs if (r.method, r.seed) != ("simpo", 1))
    never = Scores(replace(scores.header, runs=runs), lost.frame)
    assert only(never).unranked[0].reasons == ("seed 1 not run",)


def test_prompts_that_no_row_has_are_counted_in_words(make):
    scores = make()
    task = only(without(scores, scores.frame.prompt_id.isin(["p0003", "p0004"])))
    assert not task.unranked
    assert task.prompts == 198
    assert task.notes[0].startswith("2 of 200 test prompts do not have reward in every row")


def test_a_row_with_another_budget_is_not_ranked_unless_compute_was_the_budget(make):
    scores = make()
    less = replace(scores.header.runs[0], pairs=512, steps=32)
    runs = [replace(less, seed=r.seed) if r.method == "simpo" else r for r in scores.header.runs]
    runs = tuple(replace(r, method=m.method) for r, m in zip(runs, scores.header.runs, strict=True))
    task = only(Scores(replace(scores.header, runs=runs), scores.frame))
    assert [row.label for row in task.unranked] == ["simpo"]
    assert "512 pairs in 32 steps" in task.unranked[0].reasons[0]
    header = replace(scores.header, runs=runs, budget={"unit": "flops"})
    assert not only(Scores(header, scores.frame)).unranked


def test_with_one_seed_no_order_is_claimed(make):
    task = only(make(seeds=1))
    assert task.no_order.startswith("One seed: the intervals cover prompts only")
    assert verdict(task) == (task.no_order,)
    for row in task.rows:
        assert (row.ranks, row.ties) == (None, "")
        assert row.gap is None or (row.gap.p_holm is None and row.gap.remedy == "")
        assert row.measures[0].estimate.scope == "prompts only"
    assert {(pair.better, pair.p_bh) for pair in task.pairs} == {("", None)}
    means = [row.measures[0].estimate.value for row in task.rows]
    assert means == sorted(means, reverse=True)


def test_a_metric_without_a_direction_ranks_nothing(make):
    task = only(make(metrics=(Metric("length", "tokens", None, "Tokens."),)))
    assert "no better direction" in task.no_order
    assert {row.ranks for row in task.rows} == {None}
    assert any(pair.p_bh < 0.05 for pair in task.pairs)
    assert {pair.better for pair in task.pairs} == {""}


def test_an_untrained_policy_stands_beside_every_seed(make):
    scores = make(base_seeds=1)
    base = np.repeat(values(scores, "reference"), 3, axis=0)
    row = by_label(only(scores))["reference"]
    assert row.base
    assert row.cost is None
    trained = [values(scores, r.label) for r in only(scores).rows if not r.base]
    spread = spread_of_means(trained)
    assert row.gap.estimate == difference(base, values(scores, "dpo"), spread=spread)
    assert row.measures[0].estimate.seeds == 1
    again = by_label(only(make(base_seeds=3)))["reference"]
    assert again.measures[0].estimate.seeds == 3


def test_a_base_policy_that_nothing_beats_is_named(make):
    task = only(make({"reference": 0.9, "dpo": 0.5, "simpo": 0.9}, seeds=5))
    assert (
        verdict(task)[-1] == "Not shown to be better than the untrained reference: simpo and dpo."
    )


def test_without_the_reference_method_the_others_are_still_ranked(make):
    run = replace(DIVERGED, method="dpo")
    task = only(make(runs=[run], seeds=5))
    assert task.reference == ""
    assert task.notes == ("dpo has no complete row, so no difference to it is shown.",)
    assert {row.gap for row in task.rows} == {None}
    assert task.rows[0].ranks == (1, 1)


def test_of_several_settings_the_one_that_ran_first_is_the_reference(make):
    scores = make()
    tuned = replace(scores.header.runs[0], settings="beta=0.5")
    runs = tuple(replace(tuned, seed=s) for s in range(3))
    rows = scores.frame[scores.frame.method == "dpo"].assign(settings="beta=0.5")
    frame = pd.concat([scores.frame, rows.assign(value=rows.value + 0.3)])
    later = only(Scores(replace(scores.header, runs=scores.header.runs + runs), frame))
    assert later.reference == "dpo (default)"
    assert {"dpo (default)", "dpo (beta=0.5)", "madpo"} <= set(by_label(later))
    first = only(Scores(replace(scores.header, runs=runs + scores.header.runs), frame))
    assert first.reference == "dpo (beta=0.5)"


def test_the_remedy_is_the_number_of_seeds_that_would_find_the_difference_observed(make):
    scores = make({"dpo": 0.5, "madpo": 0.53}, prompts=1000)
    gap = by_label(only(scores))["madpo"].gap
    needed = seeds_needed(gap.estimate.value, gap.estimate.components, prompts=1000)
    assert needed > 3
    assert gap.remedy == f"{needed} seeds would be needed to see the difference observed"
    assert any(s.endswith(f"{gap.remedy}.") for s in verdict(only(scores)))


def test_a_metric_that_some_prompts_lack_is_shown_for_the_others(make):
    scores = make()
    f = scores.frame.copy()
    f.loc[(f.metric == "distinct") & (f.prompt_id < "p0050") & (f.seed == 0), "value"] = np.nan
    f = f[(f.metric != "length") | (f.method != "dpo")]
    measures = {m.metric: m for m in by_label(only(Scores(scores.header, f)))["dpo"].measures}
    assert measures["distinct"].estimate.prompts == 150
    assert (measures["length"].estimate, measures["length"].seeds) == (None, ())


def test_costs_are_those_of_one_run(make):
    scores = make()
    runs = tuple(replace(r, tokens=1000 * (r.seed + 1)) for r in scores.header.runs)
    cost = by_label(only(Scores(replace(scores.header, runs=runs), scores.frame)))["dpo"].cost
    assert (cost.pairs, cost.steps, cost.tokens, cost.flops) == (1024, 64, 2000, 1.23e12)


def test_the_same_board_comes_from_a_shuffled_table_and_from_a_file(make, tmp_path):
    scores = make(tasks=("sentiment-high", "sentiment-low"))
    board = build(scores)
    assert build(Scores(scores.header, scores.frame.sample(frac=1, random_state=3))) == board
    write_scores(tmp_path / "scores.parquet", scores)
    assert build(read_scores(tmp_path / "scores.parquet")) == board


def test_a_board_without_a_single_score_lists_the_failures(make, tmp_path):
    scores = make(tasks=("a", "b"))
    runs = tuple(replace(r, status="failed", reason="out of memory") for r in scores.header.runs)
    empty = pd.DataFrame(columns=list(scores.frame.columns))
    write_scores(tmp_path / "scores.parquet", Scores(replace(scores.header, runs=runs), empty))
    for task in build(read_scores(tmp_path / "scores.parquet")).tasks:
        assert {r.label for r in task.unranked} == {"dpo", "madpo", "alphadpo", "simpo"}
        assert task.unranked[0].reasons == ("seeds 0, 1, 2 failed: out of memory",)
        assert task.unranked[0].mean is None


def test_runs_of_the_untrained_policy_cost_nothing_to_train(make):
    scores = make(base_seeds=3)
    base = [replace(scores.header.runs[0], method="reference", seed=s, pairs=0) for s in range(3)]
    header = replace(scores.header, runs=(*base, *scores.header.runs))
    task = only(Scores(header, scores.frame))
    assert not task.unranked
    assert by_label(task)["reference"].cost is None


def test_a_board_of_nothing_but_failures_says_so(make):
    run = replace(DIVERGED, method="dpo", seed=0, status="failed")
    task = only(make({"dpo": 0.5}, seeds=2, runs=[run]))
    assert task.rows == ()
    assert verdict(task)[0] == "No row is complete, so nothing is ranked."
    assert task.unranked[0].reasons[0].startswith("seed 0 failed")


def test_one_complete_row_is_not_ranked_first(make):
    task = only(make({"dpo": 0.5}))
    assert task.rows[0].ranks is None
    assert "only complete row" in verdict(task)[0]


def test_one_prompt_makes_no_interval(make):
    task = only(make(prompts=1))
    assert task.rows == ()
    assert "one prompt" in task.unranked[0].reasons[0]


def test_a_board_refuses_what_it_cannot_build(make):
    scores = make()
    empty = Scores(replace(scores.header, runs=()), scores.frame.iloc[:0])
    with pytest.raises(DataError, match="run it first"):
        build(empty)
    with pytest.raises(DataError, match="'other'"):
        build(Scores(scores.header, scores.frame.assign(task="other")))
    twice = pd.concat([scores.frame, scores.frame.iloc[:1]])
    with pytest.raises(DataError, match=r"twice.*prompt_id='p0000'"):
        build(Scores(scores.header, twice))
    tasks = (replace(scores.header.tasks[0], primary="win_rate"),)
    with pytest.raises(DataError, match="'win_rate'"):
        build(Scores(replace(scores.header, tasks=tasks), scores.frame))


def test_no_board_needs_torch():
    modules = "compute, compare, files, screen, terminal, verdict"
    code = f"from harness.board import {modules}; import sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
