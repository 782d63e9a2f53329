"""How far a judge agrees with people: textbook figures, published forms of data, traps."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.errors import DataError
from harness.judge.exchange.agreement import agreement, by_subset
from harness.judge.exchange.people import Choice, Compared, majority, read_people
from harness.records import Verdict
from harness.stats.agreement import (
    clustered_mean,
    clustered_share,
    cohen_kappa,
    krippendorff_alpha,
)


def verdict(shown_first: float | None, shown_second: float | None) -> Verdict:
    """Of the first answer against the second, as the two orders gave it."""
    both = shown_first is not None and shown_second is not None
    mean = (shown_first + shown_second) / 2 if both else None  # type: ignore[operator]
    return Verdict("p", 0, 0.0, shown_first, shown_second, mean, True, "")


def compared(labels: Sequence[Choice], prompt: str = "p", subset: str = "") -> Compared:
    return Compared(prompt, "one", "two", tuple(labels), subset)


def written(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def from_table(table: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    cells = [(i, j) for i, row in enumerate(table) for j, n in enumerate(row) for _ in range(n)]
    return [i for i, _ in cells], [j for _, j in cells]


def test_cohens_kappa_meets_the_textbook_example() -> None:
    found = cohen_kappa(*from_table([[20, 5], [10, 15]]))
    assert found is not None
    assert found.value == pytest.approx(0.4, abs=1e-12)


@pytest.mark.parametrize("table", [[[20, 5], [10, 15]], [[50, 7, 3], [9, 30, 11], [2, 8, 41]]])
def test_kappa_and_its_standard_error_meet_statsmodels(table: list[list[int]]) -> None:
    from statsmodels.stats.inter_rater import cohens_kappa

    oracle = cohens_kappa(np.array(table))
    found = cohen_kappa(*from_table(table))
    assert found is not None
    assert found.value == pytest.approx(oracle.kappa, abs=1e-12)
    # Its formula is the limit of large samples; the jackknife's is a little wider.
    assert found.standard_error == pytest.approx(oracle.std_kappa, rel=0.05)


def test_krippendorffs_alpha_meets_the_published_example() -> None:
    coders = ("1 2 3 3 2 1 4 1 2 . . .", "1 2 3 3 2 2 4 1 2 5 . 3", ". 3 3 3 2 3 4 2 2 5 1 .",
              "1 2 3 3 2 4 4 1 2 5 1 .")  # fmt: skip
    units = zip(*(line.split() for line in coders), strict=True)
    found = krippendorff_alpha([[None if c == "." else c for c in unit] for unit in units])
    assert found is not None
    assert found.value == pytest.approx(0.7434210526, abs=1e-9)
    assert found.rows == 11  # the last unit has one label and nothing to compare it with


def test_alpha_and_kappa_are_one_for_raters_who_agree_and_none_where_nothing_differs() -> None:
    assert cohen_kappa([1, 2, 1, 2], [1, 2, 1, 2]).value == 1.0  # type: ignore[union-attr]
    assert krippendorff_alpha([(1, 1), (2, 2)]).value == 1.0  # type: ignore[union-attr]
    assert cohen_kappa([1, 1, 1], [1, 1, 1]) is None
    assert krippendorff_alpha([(1, 1), (1, 1)]) is None
    assert krippendorff_alpha([(1, None), (2, None)]) is None


def test_a_rater_who_ignores_the_rows_has_no_kappa_and_no_alpha() -> None:
    draw = random.Random(3)
    a = [draw.choice("xy") for _ in range(4000)]
    b = [draw.choice("xxxy") for _ in range(4000)]
    kappa = cohen_kappa(a, b)
    alpha = krippendorff_alpha(list(zip(a, b, strict=True)))
    assert kappa is not None
    assert kappa.low is not None
    assert kappa.high is not None
    assert kappa.low < 0.0 < kappa.high
    assert alpha is not None
    assert alpha.value < 0.0  # the two shares of "x" differ, and alpha counts that


def test_a_clustered_mean_meets_statsmodels() -> None:
    import statsmodels.api as sm

    draw = np.random.default_rng(5)
    groups = draw.integers(0, 40, 300)
    values = draw.normal(size=40)[groups] + draw.normal(size=300)
    fitted = sm.OLS(values, np.ones(300)).fit(cov_type="cluster", cov_kwds={"groups": groups})
    found = clustered_mean(values.tolist(), groups.tolist())
    assert found is not None
    assert found.value == pytest.approx(fitted.params[0], rel=1e-12)
    assert found.standard_error == pytest.approx(fitted.bse[0], rel=1e-12)
    assert found.clusters == len(set(groups.tolist()))


@pytest.mark.parametrize("wins", [0, 1, 19, 38])
def test_the_interval_of_a_share_is_wilsons(wins: int) -> None:
    from scipy.stats import norm, t
    from statsmodels.stats.proportion import proportion_confint

    # Statsmodels has the quantile of the normal distribution; ours is that of t.
    level = 2 * norm.sf(t.ppf(0.975, 37))
    low, high = proportion_confint(wins, 38, alpha=level, method="wilson")
    found = clustered_share([1.0] * wins + [0.0] * (38 - wins))
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert 0.0 <= found.low <= found.value <= found.high <= 1.0  # type: ignore[operator]
    # Ten copies of each row are no more evidence.
    again = clustered_share(([1.0] * wins + [0.0] * (38 - wins)) * 10, list(range(38)) * 10)
    assert again is not None
    assert (again.low, again.high) == (pytest.approx(low), pytest.approx(high))


def test_rows_that_repeat_a_prompt_are_no_new_evidence() -> None:
    values, prompts = [1.0, 0.0, 1.0, 1.0, 0.0], list("abcde")
    once = clustered_mean(values, prompts)
    often = clustered_mean(values * 10, prompts * 10)
    judged = [1, 2, 1, 1, 2], [1, 2, 2, 1, 2]
    kappa = cohen_kappa(*judged, prompts)
    repeated = cohen_kappa(judged[0] * 10, judged[1] * 10, prompts * 10)
    assert once is not None
    assert often is not None
    assert often.standard_error == pytest.approx(once.standard_error)
    assert kappa is not None
    assert repeated is not None
    assert repeated.standard_error == pytest.approx(kappa.standard_error)


def test_one_prompt_tells_nothing_of_how_much_prompts_differ() -> None:
    found = clustered_mean([1.0, 0.0], ["a", "a"])
    assert found is not None
    assert (found.low, found.high, found.standard_error) == (None, None, None)


@pytest.mark.parametrize(
    ("labels", "found"),
    [
        (("first",), "first"),
        (("first", "second", "second"), "second"),
        (("tie", "tie", "first"), "tie"),
        (("first", "second"), None),
        (("first", "second", "tie"), None),
    ],
)
def test_a_majority_is_more_than_any_other_choice(
    labels: tuple[Choice, ...], found: Choice | None
) -> None:
    assert majority(labels) == found


def test_accuracy_counts_a_judges_tie_half_and_leaves_out_what_people_call_a_tie() -> None:
    said: tuple[Choice, ...] = ("first", "second", "second", "tie")
    pairs = [compared([choice], str(i)) for i, choice in enumerate(said)]
    found = agreement(pairs, [verdict(1, 1), verdict(1, 1), verdict(1, 0), verdict(0.5, 0.5)])
    assert found.accuracy is not None
    assert (found.accuracy.value, found.accuracy.rows) == (0.5, 3)  # right, wrong, a half
    assert found.same is not None
    assert found.same.value == 0.5  # right, wrong, not the same, the same tie
    assert found.judge_ties is not None
    assert found.judge_ties.value == 0.5
    assert found.people_ties is not None
    assert found.people_ties.value == 0.25


def test_a_judge_that_looks_at_the_place_alone_is_seen_as_such() -> None:
    said: tuple[Choice, ...] = ("first", "second") * 10
    pairs = [compared([choice], str(i)) for i, choice in enumerate(said)]
    found = agreement(pairs, [verdict(1.0, 0.0)] * 20)
    assert found.consistency is not None
    assert found.consistency.value == 0.0
    assert found.position_effect is not None
    assert found.position_effect.value == 1.0
    assert found.accuracy is not None
    assert found.accuracy.value == 0.5
    assert found.one_order is not None
    assert found.one_order.value == 0.5


def test_pairs_without_a_verdict_or_a_majority_are_counted_and_in_no_figure() -> None:
    pairs = [compared(["first"], "a"), compared(["first"], "b"), compared(["first", "second"], "c")]
    found = agreement(pairs, [verdict(1, 1), verdict(None, 1), verdict(1, 1)])
    assert (found.pairs, found.unreadable, found.no_majority) == (3, 1, 1)
    assert found.same is not None
    assert found.same.rows == 1


def test_equal_answers_are_a_tie_and_say_nothing_of_the_order() -> None:
    pairs = [compared(["first"], "a"), compared(["second"], "b")]
    unasked = Verdict("b", 0, 0.0, None, None, 0.5, False, "")
    found = agreement(pairs, [verdict(1, 1), unasked])
    assert found.unreadable == 0
    assert found.accuracy is not None
    assert found.accuracy.value == 0.75
    assert found.consistency is not None
    assert found.consistency.rows == 1


def test_several_people_give_the_measure_of_what_a_judge_can_reach() -> None:
    pairs = [compared(["first", "first", "second"], "a"), compared(["second"] * 3, "b")]
    found = agreement(pairs, [verdict(1, 1), verdict(0, 0)])
    assert found.person_person is not None
    assert found.person_person.value == pytest.approx((1 / 3 + 1) / 2)
    assert found.judge_person is not None
    assert found.judge_person.value == pytest.approx((2 / 3 + 1) / 2)
    assert found.alpha is not None
    assert found.alpha_with_judge is not None
    assert found.alpha_with_judge.value > found.alpha.value


def test_subsets_have_figures_of_their_own() -> None:
    pairs = [compared(["first"], "a", "easy"), compared(["first"], "b", "hard")]
    found = by_subset(pairs, [verdict(1, 1), verdict(0, 0)])
    assert {k: v.accuracy.value for k, v in found.items() if v.accuracy} == {
        "all": 0.5, "easy": 1.0, "hard": 0.0
    }  # fmt: skip


def test_which_answer_of_a_preferred_pair_comes_first_is_drawn_by_the_texts(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "chosen": f"good {i}", "rejected": f"bad {i}"} for i in range(400)]
    swapped = [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]
    found = read_people(written(tmp_path / "a.jsonl", rows))
    other = read_people(written(tmp_path / "b.jsonl", swapped))
    firsts = Counter(pair.labels[0] for pair in found)
    assert 160 < firsts["first"] < 240
    for pair, row, back in zip(found, rows, other, strict=True):
        assert (pair.first if pair.labels == ("first",) else pair.second) == row["chosen"]
        # The order must not depend on the label, or a judge could read it off the place.
        assert (pair.first, pair.second) == (back.first, back.second)
        assert pair.labels != back.labels


@pytest.mark.parametrize(
    ("folder", "counts"),
    [
        ("pandalm-human-pairs", (999, 170, 3, 1)),
        ("llmbar", (885, 757, 1, 8)),
        ("qa-feedback-pairs", (2616, 488, 1, 1)),
    ],
)
def test_published_comparisons_are_read_whole(
    shared: Path, folder: str, counts: tuple[int, int, int, int]
) -> None:
    found = read_people(shared / "data" / folder)
    (raters,) = {len(pair.labels) for pair in found}
    prompts, subsets = ({getattr(p, name) for p in found} for name in ("prompt", "subset"))
    assert (len(found), len(prompts), raters, len(subsets)) == counts


def test_people_agree_with_themselves_as_published(shared: Path) -> None:
    pairs = read_people(shared / "data" / "pandalm-human-pairs")
    mine = [majority(pair.labels) for pair in pairs]
    said = {"first": (1.0, 1.0), "second": (0.0, 0.0), "tie": (0.5, 0.5)}
    found = agreement(pairs, [verdict(*said[m]) for m in mine if m])
    assert found.same is not None
    assert found.same.value == 1.0
    assert found.kappa is not None
    assert found.kappa.value == pytest.approx(1.0)
    assert found.alpha is not None
    assert 0.8 < found.alpha.value < found.alpha_with_judge.value  # type: ignore[union-attr]


def test_a_label_that_means_nothing_is_named_with_its_line(tmp_path: Path) -> None:
    good = {"input": "p", "output_1": "a", "output_2": "b", "label": 1}
    path = written(tmp_path / "x.jsonl", [good, {**good, "label": "left"}])
    with pytest.raises(DataError, match=r"x\.jsonl, line 2: 'label' is 'left'"):
        read_people(path)


def test_other_columns_are_named_with_those_that_are_wanted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has answer, query; comparisons need one of: .*label"):
        read_people(written(tmp_path / "x.jsonl", [{"query": "q", "answer": "a"}]))


def test_a_folder_must_hold_one_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.jsonl or \.json file"):
        read_people(tmp_path)
    row = {"input": "p", "output_1": "a", "output_2": "b", "label": 2}
    (tmp_path / "test.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    assert read_people(tmp_path) == [Compared("p", "a", "b", ("second",))]
    written(tmp_path / "more.jsonl", [row])
    with pytest.raises(DataError, match=r"more\.jsonl, test\.jsonl\.gz; name the file"):
        read_people(tmp_path)
