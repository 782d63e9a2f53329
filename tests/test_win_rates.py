"""From verdicts and the task's own values to one value per prompt and metric."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from harness.contracts.task import Contest, Corpus, Metric, Task
from harness.errors import DataError
from harness.judge.averages import averages, by_temperature
from harness.judge.metrics import common, metrics
from harness.judge.score import score
from harness.judge.win_rates import contest_metrics, judged
from harness.records import Completion, Verdict, write_jsonl
from harness.stats.length_control import length_controlled_win_rate
from harness.store.stage import Work

REWARD = Metric("reward", "reward", "higher", "of the test")


def answer(prompt: str, text: str, sample: int = 0, temperature: float = 1.0) -> Completion:
    return Completion(
        prompt, sample, "say", text, (1,), (2, 3), True, -1.0, -1.5, temperature, "basis"
    )


def verdict(of: Completion, first: float | None, second: float | None) -> Verdict:
    both = None if first is None or second is None else (first + second) / 2
    return Verdict(of.prompt_id, of.sample, of.temperature, first, second, both, True, of.original)


def values(rows: list[tuple[str, str, float]]) -> dict[tuple[str, str], float]:
    found = {(prompt, metric): value for prompt, metric, value in rows}
    assert len(found) == len(rows), "a value is there twice"
    return found


def some_task(**more: object) -> Task:
    def nothing(*_: object) -> Corpus:
        raise AssertionError("no corpus is asked for")

    return replace(
        Task(corpus=nothing, pairs=nothing, score=lambda c: [], metrics=(REWARD,)),  # type: ignore[arg-type]
        **more,
    )


def test_every_temperature_weighs_alike_however_many_samples_it_has() -> None:
    completions = [answer("p", "a", 0, 0.0), *(answer("p", "a", i, 1.0) for i in range(3))]
    own = [{"reward": 4.0}, {"reward": 0.0}, {"reward": 1.0}, {"reward": 2.0}]
    assert list(averages(completions, own)) == [("p", "reward", 2.5)]
    assert list(by_temperature(completions, own)) == [
        ("p", "reward@0", 4.0), ("p", "reward@1", 1.0)
    ]  # fmt: skip


def test_one_temperature_makes_no_curve() -> None:
    assert list(by_temperature([answer("p", "a")], [{"reward": 1.0}])) == []


def test_a_value_that_is_missing_counts_nowhere() -> None:
    completions = [answer("p", "a", 0), answer("p", "b", 1), answer("q", "c")]
    assert list(averages(completions, [{"reward": 1.0}, {}, {}])) == [("p", "reward", 1.0)]


def test_win_rates_by_hand() -> None:
    completions = [answer("p", "abcd", 0), answer("p", "ab", 1), answer("q", "abc")]
    found = values(judged(completions, [
        verdict(completions[0], 0.9, 0.7),
        verdict(completions[1], 0.8, 0.2),
        verdict(completions[2], 0.0, 0.0),
    ]).rows)  # fmt: skip
    assert found["p", "win_rate"] == pytest.approx(100 * (0.8 + 0.5) / 2)
    assert found["q", "win_rate"] == 0.0
    assert found["p", "consistency"] == 50.0
    assert found["q", "consistency"] == 100.0
    assert found["p", "position_effect"] == pytest.approx(100 * (0.2 + 0.6) / 2)
    assert (found["p", "characters"], found["p", "baseline_characters"]) == (3.0, 5.0)


def test_equal_answers_are_half_a_win_and_say_nothing_of_the_judge() -> None:
    equal = answer("p", "basis")
    found = values(judged([equal], [Verdict("p", 0, 1.0, 0.5, 0.5, 0.5, False, "basis")]).rows)
    assert found["p", "win_rate"] == 50.0
    assert ("p", "consistency") not in found
    assert ("p", "position_effect") not in found


def test_two_draws_are_consistent_and_a_draw_against_a_win_is_not() -> None:
    one, other = answer("p", "a"), answer("q", "b")
    told = [verdict(one, 0.5, 0.5), verdict(other, 0.5, 0.9)]
    found = values(judged([one, other], told).rows)
    assert found["p", "consistency"] == 100.0
    assert found["q", "consistency"] == 0.0


def test_a_judge_that_knows_no_order_has_no_figures_of_it() -> None:
    one, other = answer("p", "a"), answer("q", "b")
    metrics = {m for _, m, _ in judged([one, other], [verdict(one, 1.0, 1.0),
                                                      verdict(other, 0.2, 0.2)]).rows}  # fmt: skip
    assert "win_rate" in metrics
    assert not metrics & {"consistency", "position_effect"}


def test_what_could_not_be_read_has_no_win_rate_and_does_not_become_a_tie() -> None:
    one, other = answer("p", "a"), answer("q", "b")
    found = values(judged([one, other], [verdict(one, 1.0, None), verdict(other, 1.0, 1.0)]).rows)
    assert ("p", "win_rate") not in found
    assert ("p", "lc_win_rate") not in found
    assert found["q", "win_rate"] == 100.0
    more = [one, other, answer("r", "c")]
    told = [verdict(one, None, None), *(verdict(c, 1.0, 0.0) for c in more[1:])]
    assert ("p", "lc_win_rate") not in values(judged(more, told).rows)


def test_verdicts_on_other_completions_are_refused() -> None:
    one, other = answer("p", "a"), answer("q", "b")
    with pytest.raises(DataError, match="not about these"):
        judged([one, other], [verdict(other, 1.0, 1.0), verdict(one, 0.0, 0.0)])


def test_the_mean_of_lc_values_is_the_length_controlled_win_rate() -> None:
    rng = np.random.default_rng(5)
    completions = [answer(f"p{i}", "x" * int(rng.integers(1, 40))) for i in range(120)]
    wins = [float(rng.random() < 0.3 + 0.01 * len(c.text)) for c in completions]
    found = judged(completions, [verdict(c, w, w) for c, w in zip(completions, wins, strict=True)])
    import pandas as pd

    frame = pd.DataFrame({
        "prompt_id": [c.prompt_id for c in completions], "preference": wins,
        "length": [len(c.text) for c in completions], "baseline_length": 5,
    })  # fmt: skip
    alone = length_controlled_win_rate(frame, rng=np.random.default_rng(1))
    mean = np.mean([v for _, metric, v in found.rows if metric == "lc_win_rate"])
    assert mean == pytest.approx(alone.value)
    assert abs(alone.value - alone.raw) > 1.0


def test_at_equal_lengths_the_controlled_win_rate_is_the_raw_one_whatever_the_samples() -> None:
    """One greedy answer and four samples: each temperature weighs a half in both figures."""
    completions = [
        answer(f"p{i}", "same size", sample, t)
        for i in range(40) for t, sample in [(0.0, 0), *((1.0, k) for k in range(4))]
    ]  # fmt: skip
    verdicts = [verdict(c, *([1.0, 1.0] if c.temperature == 0.0 else [0.1, 0.1]))
                for c in completions]  # fmt: skip
    rows = judged(completions, verdicts).rows
    raw, controlled = (
        np.mean([v for _, m, v in rows if m == name]) for name in ("win_rate", "lc_win_rate")
    )
    assert raw == pytest.approx(55.0)
    assert controlled == pytest.approx(55.0)


def test_a_contest_ranks_by_its_win_rate_and_lists_every_metric_once() -> None:
    raw = metrics(some_task(contest=Contest("summary"), temperatures=(0.0, 1.0)))
    controlled = metrics(some_task(contest=Contest("summary", length_controlled=True)))
    assert raw[0].name == "win_rate"
    assert controlled[0].name == "lc_win_rate"
    names = [metric.name for metric in raw]
    assert len(set(names)) == len(names)
    assert {"win_rate@0", "win_rate@1", "reward@0", "kl"} <= set(names)
    assert not any("@" in metric.name for metric in controlled)
    assert {m.name for m in contest_metrics((1.0,))} <= {m.name for m in controlled}


def test_a_task_cannot_take_the_name_of_a_metric_of_the_harness() -> None:
    with pytest.raises(DataError, match="win_rate"):
        metrics(some_task(contest=Contest("summary"), metrics=(replace(REWARD, name="win_rate"),)))
    with pytest.raises(DataError, match="kl"):
        metrics(some_task(metrics=(replace(REWARD, name="kl"),)))


def test_kl_is_of_temperature_one_and_the_rest_of_the_temperature_asked_for() -> None:
    cold = replace(answer("p", "a b c", 0, 0.5), logprob=-7.0, ids=(1, 2, 3, 4))
    found = common([cold, answer("p", "a", 0, 1.0)], 0.5)
    assert found["kl"] == 0.5
    assert found["length"] == 4.0
    assert "kl" not in common([cold], 0.5)


PLUGIN = '''
from harness.api import Contest, Corpus, Metric, Task, Versus, task


@task()
def duel(*, sweep: bool = True) -> Task:
    """Shorter answers are better."""

    def rule(pairs: list[Versus]) -> list[float]:
        return [float(len(v.first) < len(v.second)) for v in pairs]

    def none(*_):
        return Corpus([], [])

    return Task(
        corpus=none, pairs=none,
        score=lambda some: [{"words": float(len(c.text.split()))} for c in some],
        metrics=(Metric("words", "words", None, "of an answer"),),
        temperatures=(0.0, 1.0) if sweep else (), contest=Contest("summary", rule),
    )
'''


def stage(folder: Path, verdicts: list[Verdict], completions: list[Completion]) -> Work:
    (folder / "duel.py").write_text(PLUGIN)
    for name in ("completions", "verdicts", "out"):
        (folder / name).mkdir()
    write_jsonl(folder / "completions" / "completions.jsonl", completions)
    write_jsonl(folder / "verdicts" / "verdicts.jsonl", verdicts)
    inputs = {name: folder / name for name in ("completions", "verdicts")}
    settings = {"task": str(folder / "duel.py"), "task_settings": {}, "unreadable": 0.25}
    return Work(settings, inputs, folder / "out", folder, lambda *_: None)


def test_the_score_stage_joins_task_judge_and_what_every_task_has(tmp_path: Path) -> None:
    completions = [
        answer(p, text, 0, t) for t in (0.0, 1.0) for p, text in (("p", "a b"), ("q", "longer"))
    ]
    work = stage(tmp_path, [verdict(c, 1.0, 0.5) for c in completions], completions)
    facts = score(work)
    table = pq.read_table(work.out / "scores.parquet").to_pandas()
    assert not table.duplicated(["prompt_id", "metric"]).any()
    assert set(table.metric) >= {
        "win_rate", "lc_win_rate", "win_rate@0", "win_rate@1", "words", "words@1", "kl", "length",
        "consistency", "position_effect", "characters",
    }  # fmt: skip
    assert facts["means"]["win_rate"] == 75.0
    assert facts["unreadable"] == 0
    assert "unreliable" not in facts
    assert any("too few" in warning for warning in facts["length_control"]["warnings"])
    assert json.dumps(facts)


def test_too_many_verdicts_that_cannot_be_read_make_a_score_unreliable(tmp_path: Path) -> None:
    completions = [answer(f"p{i}", "a" * (i + 1)) for i in range(4)]
    verdicts = [verdict(c, None if i < 2 else 1.0, 1.0) for i, c in enumerate(completions)]
    work = stage(tmp_path, verdicts, completions)
    facts = score(work)
    assert facts["unreadable"] == 2
    assert "2 of 4" in facts["unreliable"]
    (tmp_path / "again").mkdir()
    few = stage(tmp_path / "again", [verdict(c, 1.0, 1.0) for c in completions], completions)
    assert "unreliable" not in score(few)
