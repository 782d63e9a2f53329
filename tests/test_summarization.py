"""The summarization task: prompts, labels, scores; on its world, on posts and comparisons."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.config import make_experiment
from harness.contracts.judge import Versus
from harness.contracts.task import Answers, Corpus, Sizes, Task
from harness.errors import DataError, RequestError
from harness.pipeline.plan import plan
from harness.records import Completion, Pair, Prompt, read_jsonl
from harness.registry import load_task
from harness.store.stage import Stage
from harness.store.store import Store

SIZES = Sizes(texts=50, train=400, validation=40, test=30)
SMALL = Sizes(texts=40, train=20, validation=5, test=10)


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("summarization").build()


@pytest.fixture(scope="module")
def prompts(task: Task) -> list[Prompt]:
    return list(task.corpus(SIZES, np.random.default_rng(0)).prompts)


def completion(
    prompt: Prompt, text: str, sample: int = 0, ids: tuple[int, ...] = (3,)
) -> Completion:
    return Completion(
        prompt.prompt_id, sample, prompt.text, text, (1, 2), ids, True, original=prompt.original
    )


def mine(prompts: Sequence[Prompt]) -> list[Prompt]:
    return [prompt for prompt in prompts if prompt.split != "test"]


def answers(prompts: Sequence[Prompt], other: str = " by bike .") -> dict[str, Answers]:
    """A careful summary with ids (3, 0) and another text with (3, 1)."""
    return {
        p.prompt_id: Answers(
            [completion(p, p.original, 0, (3, 0)), completion(p, other, 1, (3, 1))], None
        )
        for p in prompts
    }


def labelled(task: Task, prompts: Sequence[Prompt], seed: int = 0, **more: Any) -> list[Pair]:
    asked = mine(prompts)
    return task.pairs("", asked, answers(asked, **more), np.random.default_rng(seed))


def disjoint(corpus: Corpus) -> None:
    """No prompt is in two splits, and no text to learn from begins with a prompt."""
    texts = {prompt.text: prompt.split for prompt in corpus.prompts}
    splits = {(prompt.text, prompt.split) for prompt in corpus.prompts}
    assert len(texts) == len(splits)
    assert not [text for text in corpus.texts if any(text.startswith(p) for p in texts)]


def test_prompts_are_disjoint_and_as_many_as_were_asked_for(task: Task) -> None:
    corpus = task.corpus(SIZES, np.random.default_rng(0))
    disjoint(corpus)
    counts = {s: sum(p.split == s for p in corpus.prompts) for s in ("train", "validation", "test")}
    assert counts == {"train": 400, "validation": 40, "test": 30}
    assert len(corpus.texts) == 50


def test_a_prompt_and_its_reference_summary_are_a_text_of_the_world(
    task: Task, prompts: list[Prompt]
) -> None:
    assert task.parses is not None
    assert all(task.parses(p.text + p.original) for p in prompts)
    assert all(p.text.endswith(" tl;dr :") for p in prompts)


def test_the_corpus_is_a_function_of_its_seed(task: Task) -> None:
    one, same, other = (task.corpus(SIZES, np.random.default_rng(s)) for s in (1, 1, 2))
    assert one == same
    assert one.texts != other.texts


def test_pairs_are_the_two_samples_of_each_prompt_that_is_not_for_tests(
    task: Task, prompts: list[Prompt]
) -> None:
    pairs = labelled(task, prompts)
    originals = {p.prompt_id: p for p in prompts}
    assert {pair.pair_id for pair in pairs} == {p.prompt_id for p in mine(prompts)}
    for pair in pairs:
        prompt = originals[pair.pair_id]
        assert {(pair.chosen, pair.chosen_ids), (pair.rejected, pair.rejected_ids)} == {
            (prompt.original, (3, 0)), (" by bike .", (3, 1)),
        }  # fmt: skip
        assert (pair.prompt, pair.split, pair.prompt_ids) == (prompt.text, prompt.split, (1, 2))


def test_rewards_of_a_pair_are_those_that_are_scored(task: Task, prompts: list[Prompt]) -> None:
    for pair in labelled(task, prompts)[:50]:
        prompt = Prompt(pair.pair_id, pair.split, pair.prompt)
        both = [completion(prompt, pair.chosen), completion(prompt, pair.rejected)]
        assert [row["reward"] for row in task.score(both)] == [
            pair.chosen_reward, pair.rejected_reward,
        ]  # fmt: skip


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0])
def test_labels_are_bradley_terry_on_the_true_reward(noise: float, prompts: list[Prompt]) -> None:
    task = load_task("summarization").build(label_noise=noise)
    found = [p for seed in range(10) for p in labelled(task, prompts, seed, other=" in oslo .")]
    gaps = np.array([(p.chosen_reward or 0) - (p.rejected_reward or 0) for p in found])
    size, right = np.abs(gaps), gaps > 0
    expected = 1 / (1 + np.exp(-size / noise))
    assert len(set(size.round(3))) > 5
    for low, high in ((0.4, 1.5), (1.5, 2.5), (2.5, 4.5)):
        inside = (size >= low) & (size < high)
        error = 4 * np.sqrt(0.25 / inside.sum())
        assert inside.sum() > 100
        assert abs(right[inside].mean() - expected[inside].mean()) < error


def test_without_noise_the_better_answer_is_always_chosen(prompts: list[Prompt]) -> None:
    task = load_task("summarization").build(label_noise=0.0)
    for pair in labelled(task, prompts, other=" in oslo ."):
        assert (pair.chosen_reward or 0) >= (pair.rejected_reward or 0)


POST = Prompt(
    "p", "test", "my bike is broken . it was my boss . tl;dr :", " broken bike , by my boss ."
)


def test_a_summary_is_scored_on_truth_and_on_the_words_of_its_reference(task: Task) -> None:
    assert task.score([completion(POST, text) for text in (POST.original, " in oslo .", "")]) == [
        {"reward": pytest.approx(1.3), "coverage": 1, "invented": 0, "rouge_1": 1, "rouge_l": 1},
        {"reward": pytest.approx(-1.3), "coverage": 0, "invented": 1, "rouge_1": 0, "rouge_l": 0},
        {"reward": -1.0, "coverage": 0, "invented": 0, "rouge_1": 0, "rouge_l": 0},
    ]  # fmt: skip


def test_rouge_counts_shared_words_and_the_longest_shared_sequence() -> None:
    task = load_task("summarization").build(data="x", comparisons="x")
    prompt = Prompt("p", "test", "A post. TL;DR:", " The dog was barking all night.")
    # 6 and 4 words; shared: dog, bark, night; in the same order at most dog, bark.
    (found,) = task.score([completion(prompt, " Night: dog barks loudly!")])
    assert found == {
        "rouge_1": pytest.approx(2 * 3 / (6 + 4)), "rouge_l": pytest.approx(2 * 2 / (6 + 4)),
    }  # fmt: skip


def test_scores_are_the_metrics_that_the_task_declares(task: Task, shared: Path) -> None:
    real = load_task("summarization").build(
        data="x", reward=str(shared / "models" / "avgword-imdb-sentiment")
    )
    for one in (task, real, load_task("summarization").build(data="x", comparisons="x")):
        (found,) = one.score([completion(POST, " broken bike .")])
        assert list(found) == [metric.name for metric in one.metrics]


def test_answers_are_swept_over_the_temperatures_of_madpos_second_version(task: Task) -> None:
    assert task.temperatures == (0.0, 0.25, 0.5, 0.75, 1.0)
    assert load_task("summarization").build(temperatures="0.7, 1").temperatures == (0.7, 1.0)


def test_the_world_judges_by_its_truth_and_real_posts_have_no_rule(task: Task) -> None:
    assert task.contest is not None
    assert task.contest.rule is not None
    (found,) = task.contest.rule([Versus(POST.text, POST.original, " in oslo .")])
    assert found.preference == pytest.approx(1 / (1 + np.exp(-(1.3 + 1.3))))
    real = load_task("summarization").build(data="x", comparisons="x")
    assert real.contest is not None
    assert real.contest.rule is None
    assert (real.small_model, real.parses) == (None, None)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"label_noise": -1.0}, "label_noise"),
        ({"temperatures": ""}, "temperatures"),
        ({"temperatures": "0,hot"}, "temperatures"),
        ({"temperatures": "0,1,1.0"}, "temperatures"),
        ({"temperatures": "-0.5"}, "temperatures"),
        ({"temperatures": "nan"}, "temperatures"),
        ({"comparisons": "x"}, "summarization.data"),
        ({"reward": "x"}, "summarization.data"),
        ({"positive": "x"}, "summarization.data"),
        ({"data": "x"}, "summarization.comparisons"),
        ({"data": "x", "comparisons": "x", "positive": "good"}, "summarization.reward"),
        ({"data": "x", "comparisons": "x", "label_noise": 0.5}, "label_noise"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object], named: str) -> None:
    with pytest.raises(RequestError, match=named):
        load_task("summarization").build(**settings)


def write(folder: Path, **splits: Sequence[dict[str, Any]]) -> str:
    folder.mkdir(exist_ok=True)
    for split, rows in splits.items():
        with gzip.open(folder / f"{split}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return str(folder)


def post(split: str, i: int) -> dict[str, str]:
    return {
        "subreddit": "dogs", "title": f"{split} title {i}", "post": f"{split} post {i}.\n\nHelp!",
        "summary": f"{split} summary {i}",
    }  # fmt: skip


def rendered(row: dict[str, str]) -> str:
    return f"SUBREDDIT: r/dogs\n\nTITLE: {row['title']}\n\nPOST: {row['post']}\n\nTL;DR:"


TRAIN = [post("train", i) for i in range(80)]
TEST = [post("test", i) for i in range(20)]


def as_prompts(rows: Sequence[dict[str, str]], name: str) -> list[dict[str, str]]:
    return [{"prompt": rendered(row), name: f" {row['summary']}"} for row in rows]


def build(data: str) -> Task:
    """A task that never labels a pair, so that the classifier need not be one."""
    return load_task("summarization").build(data=data, reward=data)


@pytest.mark.parametrize("form", ["columns", "completion", "label"])
def test_every_form_of_posts_gives_the_same_prompts_and_summaries(
    tmp_path: Path, form: str
) -> None:
    rows = (TRAIN, TEST)
    if form != "columns":
        rows = as_prompts(TRAIN, form), as_prompts(TEST, form)
    data = write(tmp_path, train=rows[0], test=rows[1])
    corpus = build(data).corpus(SMALL, np.random.default_rng(0))
    disjoint(corpus)
    expected = {rendered(row): f" {row['summary']}" for row in (*TRAIN, *TEST)}
    assert all(expected[p.text] == p.original for p in corpus.prompts)
    assert all("test" in p.text if p.split == "test" else "train" in p.text for p in corpus.prompts)
    assert len(corpus.texts) == 40
    assert set(corpus.texts) <= {prompt + summary for prompt, summary in expected.items()}
    assert [sum(p.split == s for p in corpus.prompts) for s in ("train", "validation", "test")] == [
        20, 5, 10,
    ]  # fmt: skip


def test_posts_that_are_not_used_are_counted(tmp_path: Path) -> None:
    again = [{**row, "title": "again"} for row in (TEST[0], TEST[1], TRAIN[0])]
    void = [{**TRAIN[1], "post": "  "}, {**post("train", 99), "summary": None}]
    data = write(tmp_path, train=[*TRAIN, *again, *void], test=TEST)
    corpus = build(data).corpus(SMALL, np.random.default_rng(0))
    rule = corpus.facts["rule"]["train"]
    assert rule["kept"] == 80
    assert rule["dropped"] == {"empty": 2, "held out": 2, "duplicate": 1}
    longest = max(len(rendered(row)) for row in (*TRAIN, *TEST))
    assert corpus.facts["characters"]["prompts"]["longest"] <= longest
    assert corpus.facts["characters"]["summaries"]["longest"] == len(" train summary 10")


def test_too_few_posts_are_an_error_that_names_the_budget(tmp_path: Path) -> None:
    data = write(tmp_path, train=TRAIN, test=TEST)
    task = build(data)
    for sizes, key in (
        (Sizes(1, 80, 1, 1), r"budget\.pairs"),
        (Sizes(1, 1, 81, 1), r"budget\.validation_pairs"),
        (Sizes(1, 1, 1, 21), r"budget\.test_prompts"),
    ):
        with pytest.raises(DataError, match=key):
            task.corpus(sizes, np.random.default_rng(0))


def test_columns_of_no_known_form_are_an_error_that_says_which_are(tmp_path: Path) -> None:
    data = write(tmp_path, train=[{"text": "x"}], test=[{"text": "x"}])
    with pytest.raises(DataError, match=r"no column.*prompt\+completion"):
        build(data).corpus(SMALL, np.random.default_rng(0))


def record(i: int, kind: int, choice: int) -> dict[str, Any]:
    """A comparison of post i in the form of the data of people's feedback."""
    row = post("compared", i)
    return {
        "info": {
            "id": f"t3_{i}", "post": row["post"], "title": row["title"], "subreddit": "dogs",
            "article": None,
        },
        "summaries": [
            {"text": f" first {i} {kind}", "policy": "sup", "note": None},
            {"text": f" second {i} {kind}", "policy": "ref", "note": "fine"},
        ],
        "choice": choice, "worker": "w", "split": "train",
    }  # fmt: skip


def as_columns(row: dict[str, Any]) -> dict[str, str]:
    """The same comparison as prompt, chosen, rejected, the marker before the summaries."""
    info, choice = row["info"], row["choice"]
    texts = [f"TL;DR: {summary['text'].strip()}" for summary in row["summaries"]]
    prompt = f"SUBREDDIT: r/dogs\nTITLE: {info['title']}\nPOST: {info['post']}"
    return {"prompt": prompt, "chosen": texts[choice], "rejected": texts[1 - choice]}


RECORDS = [record(i, kind, (i + kind) % 2) for i in range(20) for kind in range(2)]


def compared(folder: Path, records: Sequence[dict[str, Any]], data: Sequence[Any] = TRAIN) -> Task:
    source = write(folder / "compared", train=records)
    posts = write(folder / "posts", train=data, test=TEST)
    return load_task("summarization").build(data=posts, comparisons=source)


@pytest.mark.parametrize("form", ["records", "columns"])
def test_pairs_are_the_comparisons_that_people_made(tmp_path: Path, form: str) -> None:
    rows = RECORDS if form == "records" else [as_columns(row) for row in RECORDS]
    task = compared(tmp_path, rows)
    corpus = task.corpus(SMALL, np.random.default_rng(0))
    disjoint(corpus)
    asked = mine(corpus.prompts)
    pairs = task.pairs("", asked, {}, np.random.default_rng(0))
    assert {pair.pair_id for pair in pairs} == {p.prompt_id for p in asked}
    assert [pair.pair_id for pair in pairs] != [p.prompt_id for p in asked]
    expected = {}
    for row in RECORDS:
        texts = [summary["text"] for summary in row["summaries"]]
        chosen, rejected = texts[row["choice"]], texts[1 - row["choice"]]
        expected[chosen] = (rendered({**row["info"]}), chosen, rejected)
    for pair in pairs:
        assert (pair.prompt, pair.chosen, pair.rejected) == expected[pair.chosen]
        assert (pair.prompt_ids, pair.chosen_ids, pair.chosen_reward) == (None, None, None)
    assert sum(pair.split == "validation" for pair in pairs) == 5
    assert all(p.original == expected[p.original][1] for p in asked)


def test_no_compared_post_is_in_the_test_split_or_among_the_texts(tmp_path: Path) -> None:
    stolen = {**RECORDS[0], "info": {**RECORDS[0]["info"], "post": TEST[0]["post"]}}
    newspaper = {**RECORDS[1], "info": {"id": "c", "post": None, "article": "News.", "title": None}}
    both = [post("compared", i) for i in range(20)]
    task = compared(tmp_path, [*RECORDS, stolen, newspaper, RECORDS[5]], [*TRAIN, *both])
    corpus = task.corpus(Sizes(200, 36, 4, 10), np.random.default_rng(0))
    disjoint(corpus)
    assert len(corpus.texts) == 80
    facts = corpus.facts["comparisons"]
    assert facts["dropped"] == {"empty": 1, "held out": 0, "duplicate": 1}
    assert (facts["of posts of the test split"], facts["usable"]) == (1, 40)
    with pytest.raises(DataError, match=r"budget\.pairs.*comparisons"):
        task.corpus(Sizes(10, 37, 4, 10), np.random.default_rng(0))


@pytest.mark.parametrize(
    "broken",
    [{"choice": 2}, {"choice": None}, {"summaries": [{"text": "one"}]}, {"summaries": None},
     {"info": None}, {"summaries": [{"text": None}, {"text": "two"}]}],
)  # fmt: skip
def test_a_row_that_is_no_comparison_is_named(tmp_path: Path, broken: dict[str, Any]) -> None:
    task = compared(tmp_path, [*RECORDS, {**RECORDS[0], **broken}])
    with pytest.raises(DataError, match=r"train\.jsonl\.gz, row 41"):
        task.corpus(SMALL, np.random.default_rng(0))


def test_real_posts_are_labelled_by_a_classifier_on_its_log_odds(shared: Path) -> None:
    task = load_task("summarization").build(
        data=str(shared / "data" / "reddit-tldr"),
        reward=str(shared / "models" / "avgword-imdb-sentiment"),
        label_noise=0.0,
    )
    corpus = task.corpus(Sizes(300, 60, 20, 50), np.random.default_rng(0))
    disjoint(corpus)
    assert corpus.facts["rule"]["test"]["kept"] == 1000
    assert len(corpus.texts) == 300
    assert all(p.text.startswith("SUBREDDIT: r/") for p in corpus.prompts)
    assert all(p.text.endswith("\n\nTL;DR:") and p.original[1:].strip() for p in corpus.prompts)
    pairs = labelled(task, corpus.prompts, other=" awful, stupid, boring, a waste of time")
    assert len(pairs) == 80
    kinder = sum(pair.rejected.startswith(" awful") for pair in pairs)
    assert kinder > 60
    assert all((p.chosen_reward or 0) >= (p.rejected_reward or 0) for p in pairs)
    assert min(p.rejected_reward or 0 for p in pairs) < -1


def visit(store: Store, stage: Stage) -> Path:
    """The folder of a stage, made with all that it reads where it is not there yet."""
    for source in stage.inputs.values():
        visit(store, source)
    if not store.is_done(stage):
        store.perform(stage)
    return store.folder(stage)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Completion]]:
    """Test completions of the reference policy and of DPO, under the default budget."""
    experiment = make_experiment(
        {"methods": "dpo", "tasks": "summarization", "seeds": 1},
        known_tasks=["summarization"],
        plugin_name=str,
    )
    store = Store.open(tmp_path_factory.mktemp("runs"))
    return {
        cell.row.method.name if cell.row else "reference": read_jsonl(
            visit(store, cell.score.inputs["completions"]) / "completions.jsonl", Completion
        )
        for cell in plan(experiment).cells
    }


def at(completions: Sequence[Completion], temperature: float) -> list[Completion]:
    return [c for c in completions if c.temperature == temperature]


def mean(task: Task, completions: Sequence[Completion], metric: str) -> float:
    return float(np.mean([row[metric] for row in task.score(completions)]))


@pytest.mark.slow
def test_the_warm_started_policy_summarises_its_own_post(
    task: Task, written: dict[str, list[Completion]]
) -> None:
    assert task.parses is not None
    drawn = at(written["reference"], 1.0)
    assert np.mean([task.parses(c.prompt + c.text) for c in drawn]) >= 0.9
    elsewhere = [replace(c, prompt=d.prompt) for c, d in zip(drawn, drawn[4:], strict=False)]
    assert 0.3 < mean(task, drawn, "coverage") < 0.8
    assert mean(task, elsewhere, "coverage") < 0.1


@pytest.mark.slow
def test_the_warm_started_policy_neither_always_wins_nor_always_loses(
    task: Task, written: dict[str, list[Completion]]
) -> None:
    assert task.contest is not None
    assert task.contest.rule is not None
    for temperature in task.temperatures:
        drawn = at(written["reference"], temperature)
        assert len(drawn) == (800 if temperature else 200)
        found = task.contest.rule([Versus(c.prompt, c.text, c.original) for c in drawn])
        assert 0.2 < np.mean([one.preference for one in found if one.preference is not None]) < 0.8


@pytest.mark.slow
def test_preference_training_gains_in_this_world(
    task: Task, written: dict[str, list[Completion]]
) -> None:
    before, after = (mean(task, at(written[n], 1.0), "reward") for n in ("reference", "dpo"))
    assert after > before + 0.2
