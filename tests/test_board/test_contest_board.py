"""Boards of tasks whose answers were compared with a baseline's by a judge."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from harness.board.columns import details
from harness.board.compute import build
from harness.board.exports import as_json
from harness.board.page import page
from harness.contracts.task import LC_WIN_RATE, STYLE, WIN_RATE, Metric
from harness.scores import Header, Run, Scores, TaskHeader

TASK = "duel"
DOCUMENTS = Metric("arc/acc", "score", "higher", "of another evaluation")


def rows(metric, values, method, seed, prompts=None):
    names = prompts or [f"p{i:03d}" for i in range(len(values))]
    return pd.DataFrame({
        "task": TASK, "metric": metric, "method": method, "settings": "", "seed": seed,
        "prompt_id": names, "value": values, "unit": "%",
    })  # fmt: skip


def table(*, wins=(60.0, 40.0), spare=0.0, seeds=3, prompts=120, longer=0.3):
    rng = np.random.default_rng(3)
    parts, runs = [], []
    for method, mean in zip(("dpo", "simpo"), wins, strict=True):
        for seed in range(seeds):
            won = np.clip(mean + 25 * rng.standard_normal(prompts), 0, 100)
            parts += [rows("win_rate", won, method, seed), rows("lc_win_rate", won, method, seed)]
            for metric in STYLE:
                mine = longer * rng.random(prompts) * (metric.name == "style_length")
                parts.append(rows(metric.name, mine, method, seed))
            parts.append(rows(DOCUMENTS.name, rng.random(20), method, seed,
                              [f"arc/{i}" for i in range(20)]))  # fmt: skip
            runs.append(Run(TASK, method, "", seed, "done", pairs=64, steps=2))
    metrics = (WIN_RATE, LC_WIN_RATE, *STYLE, DOCUMENTS)
    header = Header(
        "x", "harness run", "dpo", "reference",
        (TaskHeader(TASK, "win_rate", metrics, prompts, spare),), tuple(runs), {}, {},
    )  # fmt: skip
    return Scores(header, pd.concat(parts, ignore_index=True))


def without(scores, method, prompts):
    f = scores.frame
    lost = (f.method == method) & f.prompt_id.isin(prompts) & ~f.metric.str.startswith("arc")
    return Scores(scores.header, f[~lost])


def only(scores):
    (task,) = build(scores).tasks
    return task


def test_strength_is_the_win_rate_where_all_met_the_same_baseline():
    scores = table()
    for row in only(scores).rows:
        mean = scores.matrix(TASK, "win_rate", row.method, "").to_numpy().mean()
        assert row.standing.plain.value == pytest.approx(mean, abs=1e-3)
        low, high = row.standing.plain.interval
        assert low < mean < high


def test_the_strength_at_equal_style_takes_away_what_length_won():
    rng = np.random.default_rng(0)
    scores = table(wins=(50.0, 50.0))
    frame = scores.frame.copy()
    longer = pd.Series(rng.uniform(-0.2, 0.8, len(frame)))
    style, won = frame.metric == "style_length", frame.metric == "win_rate"
    frame.loc[style, "value"] = longer[style]
    frame.loc[won, "value"] = 100 / (1 + np.exp(-3 * longer[style].to_numpy()))
    for row in only(Scores(scores.header, frame)).rows:
        assert row.standing.plain.value > 60
        assert row.standing.styled.value == pytest.approx(50, abs=2)


def test_a_row_that_won_every_game_is_said_to_have_no_strength_that_could_be_told():
    scores = table()
    frame = scores.frame.copy()
    frame.loc[(frame.metric == "win_rate") & (frame.method == "dpo"), "value"] = 100.0
    notes = only(Scores(scores.header, frame)).notes
    assert any("'dpo' won every one of its" in note for note in notes)
    assert not any("won every one" in note for note in only(scores).notes)


def test_equal_scores_make_equal_strengths():
    assert as_json(build(table())) == as_json(build(table()))
    tree = json.loads(as_json(build(table())))
    strength = tree["tasks"][0]["rows"][0]["strength"]
    assert strength["plain"]["low"] < strength["plain"]["value"] < strength["plain"]["high"]
    assert set(strength) == {"plain", "style_controlled"}


def test_a_board_without_contest_has_no_strengths(make):
    (task,) = build(make()).tasks
    assert all(row.standing is None for row in task.rows)
    assert "strength" not in {column.title for column in details(task)}


def test_figures_kept_for_analysis_are_no_columns():
    titles = {column.title for column in details(only(table()))}
    assert {"lc_win_rate", "strength", "at equal style", "arc/acc"} <= titles
    assert not any(title.startswith("style_") for title in titles)


def test_another_evaluation_keeps_its_own_documents():
    scores = table()
    for row in only(scores).rows:
        found = next(m for m in row.measures if m.metric == "arc/acc").estimate
        own = scores.matrix(TASK, "arc/acc", row.method, "").to_numpy()
        assert found.prompts == 20
        assert found.value == pytest.approx(own.mean())


def test_a_row_that_lacks_a_verdict_is_not_ranked_unless_the_task_allows_it():
    lost = without(table(), "simpo", ["p003"])
    task = only(lost)
    assert [row.label for row in task.unranked] == ["simpo"]
    assert "1 of 120" in task.unranked[0].reasons[0]
    spared = only(without(table(spare=0.02), "simpo", ["p003"]))
    assert not spared.unranked
    many = only(without(table(spare=0.02), "simpo", [f"p{i:03d}" for i in range(3)]))
    assert [row.label for row in many.unranked] == ["simpo"]


def test_rows_are_compared_on_the_prompts_that_all_of_them_have():
    scores = without(without(table(spare=0.02), "simpo", ["p003"]), "dpo", ["p007"])
    task = only(scores)
    assert {row.measures[0].estimate.prompts for row in task.rows} == {118}
    kept = [f"p{i:03d}" for i in range(120) if i not in (3, 7)]
    dpo, simpo = (scores.matrix(TASK, "win_rate", m, "")[kept].to_numpy() for m in ("dpo", "simpo"))
    assert task.pairs[0].estimate.value == pytest.approx((dpo - simpo).mean())
    assert task.notes[0].startswith("2 of 120 test prompts do not have win_rate")


def test_an_unreliable_run_is_shown_with_its_reason_and_not_ranked():
    scores = table()
    runs = [
        replace(r, status="unreliable", reason="30 of 240 comparisons have no verdict")
        if r.method == "simpo" and r.seed == 1 else r for r in scores.header.runs
    ]  # fmt: skip
    task = only(Scores(replace(scores.header, runs=tuple(runs)), scores.frame))
    (row,) = task.unranked
    assert row.label == "simpo"
    assert "30 of 240" in row.reasons[0]
    assert row.mean is not None


def test_the_page_explains_its_columns_and_nothing_that_it_does_not_show():
    text = page(build(table()))
    assert "lc_win_rate (points)" in text
    assert "style_headers" not in text
