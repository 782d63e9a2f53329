"""The sentiment task: prompts, tiers, labels, scores; on its world and on real reviews."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from harness.contracts.task import Answers, Sizes, Task
from harness.errors import DataError, RequestError
from harness.records import Completion, Pair, Prompt
from harness.registry import load_task

SIZES = Sizes(texts=50, train=400, validation=40, test=30)
GOOD, BAD = " the plot was superb .", " the plot was awful ."


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("sentiment").build()


@pytest.fixture(scope="module")
def prompts(task: Task) -> list[Prompt]:
    return list(task.corpus(SIZES, np.random.default_rng(0)).prompts)


def completion(prompt: Prompt, sample: int, text: str) -> Completion:
    return Completion(prompt.prompt_id, sample, prompt.text, text, (1, 2), (3, sample), True)


def answers(prompts: list[Prompt]) -> dict[str, Answers]:
    """Samples end with ids (3, 0) and (3, 1), what followed in the data with (3, 9)."""
    return {
        p.prompt_id: Answers(
            [completion(p, 0, GOOD), completion(p, 1, BAD)], completion(p, 9, p.original)
        )
        for p in prompts
    }


def test_prompts_are_disjoint_and_as_many_as_were_asked_for(prompts: list[Prompt]) -> None:
    assert len({p.text for p in prompts}) == len(prompts)
    counts = {s: sum(p.split == s for p in prompts) for s in ("train", "validation", "test")}
    assert counts == {"train": 400, "validation": 40, "test": 30}
    assert all(len(p.text.split()) == 8 for p in prompts)


def test_a_prompt_and_what_followed_it_are_a_text_of_the_world(
    task: Task, prompts: list[Prompt]
) -> None:
    assert task.parses is not None
    assert all(task.parses(p.text + p.original) for p in prompts)


def test_the_corpus_is_a_function_of_its_seed(task: Task) -> None:
    one, same, other = (task.corpus(SIZES, np.random.default_rng(s)) for s in (1, 1, 2))
    assert one == same
    assert one.texts != other.texts


def tier(task: Task, name: str, prompts: list[Prompt], seed: int = 0) -> list[Pair]:
    mine = [p for p in prompts if p.split != "test"]
    return task.pairs(name, mine, answers(mine), np.random.default_rng(seed))


def test_high_pairs_are_the_two_samples(task: Task, prompts: list[Prompt]) -> None:
    for pair in tier(task, "high", prompts):
        assert {pair.chosen, pair.rejected} == {GOOD, BAD}
        assert {pair.chosen_ids, pair.rejected_ids} == {(3, 0), (3, 1)}
        assert pair.prompt_ids == (1, 2)


def test_low_pairs_set_the_better_sample_against_what_followed(
    task: Task, prompts: list[Prompt]
) -> None:
    originals = {p.prompt_id: p.original for p in prompts}
    for pair in tier(task, "low", prompts):
        assert {pair.chosen, pair.rejected} == {GOOD, originals[pair.pair_id]}
        assert {pair.chosen_ids, pair.rejected_ids} == {(3, 0), (3, 9)}


def test_medium_pairs_are_half_and_half_in_both_splits(task: Task, prompts: list[Prompt]) -> None:
    pairs = tier(task, "medium", prompts)
    for split, size in (("train", 400), ("validation", 40)):
        mine = [pair for pair in pairs if pair.split == split]
        easy = sum((3, 9) in (pair.chosen_ids, pair.rejected_ids) for pair in mine)
        assert (len(mine), easy) == (size, size // 2)


def test_no_test_prompt_makes_a_pair(task: Task, prompts: list[Prompt]) -> None:
    for name in ("high", "medium", "low"):
        assert {pair.split for pair in tier(task, name, prompts)} == {"train", "validation"}


def test_rewards_of_a_pair_are_those_of_the_whole_text(task: Task, prompts: list[Prompt]) -> None:
    for pair in tier(task, "low", prompts)[:50]:
        texts = [pair.prompt + pair.chosen, pair.prompt + pair.rejected]
        scored = task.score(
            [Completion("x", 0, "", text, (), (), True) for text in texts]
        )  # fmt: skip
        assert [row["reward"] for row in scored] == [pair.chosen_reward, pair.rejected_reward]


@pytest.mark.parametrize("noise", [0.5, 1.0, 2.0])
def test_labels_are_bradley_terry_on_the_true_reward(noise: float, prompts: list[Prompt]) -> None:
    task = load_task("sentiment").build(label_noise=noise)
    pairs = [p for seed in range(10) for p in tier(task, "low", prompts, seed)]
    gaps = np.array([(p.chosen_reward or 0) - (p.rejected_reward or 0) for p in pairs])
    size = np.abs(gaps)
    expected = 1 / (1 + np.exp(-size / noise))
    right = gaps > 0
    for low, high in ((0.1, 0.6), (0.6, 1.2), (1.2, 2.0)):
        mine = (size >= low) & (size < high)
        error = 4 * np.sqrt(0.25 / mine.sum())
        assert mine.sum() > 100
        assert abs(right[mine].mean() - expected[mine].mean()) < error


def test_without_noise_the_better_answer_is_always_chosen(prompts: list[Prompt]) -> None:
    task = load_task("sentiment").build(label_noise=0.0)
    for pair in tier(task, "low", prompts):
        assert (pair.chosen_reward or 0) >= (pair.rejected_reward or 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"prompt_words": 0},
        {"temperature": 0.0},
        {"label_noise": -1.0},
        {"data": "x"},
        {"reward": "x"},
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(RequestError):
        load_task("sentiment").build(**settings)


def write_reviews(folder: Path, train: list[str], test: list[str]) -> str:
    for split, texts in (("train", train), ("test", test)):
        with gzip.open(folder / f"{split}.jsonl.gz", "wt") as file:
            file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    return str(folder)


def review(split: str, i: int) -> str:
    return f"{split} review number {i} says that this film is neither good nor bad at all"


def test_real_reviews_keep_test_texts_out_of_everything_else(tmp_path: Path) -> None:
    train = [review("train", i) for i in range(80)]
    test = [review("test", i) for i in range(20)]
    data = write_reviews(tmp_path, [*train, *test[:5], train[0], "  "], test)
    task = load_task("sentiment").build(data=data, reward=data, prompt_words=5)
    sizes = Sizes(texts=40, train=20, validation=5, test=10)
    corpus = task.corpus(sizes, np.random.default_rng(0))
    assert all("test" not in text for text in corpus.texts)
    assert all(p.text.startswith(p.split[:4]) or p.split == "validation" for p in corpus.prompts)
    used = {p.text + p.original for p in corpus.prompts}
    assert not used & set(corpus.texts)
    assert used <= {*train, *test}
    dropped = corpus.facts["rule"]["train"]["dropped"]
    assert dropped == {"empty": 1, "held out": 5, "duplicate": 1}


def test_too_few_reviews_are_an_error_that_names_the_budget(tmp_path: Path) -> None:
    data = write_reviews(tmp_path, [review("train", 1)], [review("test", 1)])
    task = load_task("sentiment").build(data=data, reward=data, prompt_words=5)
    with pytest.raises(DataError, match=r"budget\.pairs"):
        task.corpus(Sizes(10, 10, 5, 1), np.random.default_rng(0))


def test_real_reviews_are_scored_by_the_classifier(shared: Path) -> None:
    task = load_task("sentiment").build(
        data=str(shared / "data" / "imdb"),
        reward=str(shared / "models" / "avgword-imdb-sentiment"),
    )
    words = ("wonderful, moving and superb", "a dull, stupid and awful waste of time")
    good, bad = (
        task.score([Completion("x", 0, "this film is ", text, (), (), True)])[0]["reward"]
        for text in words
    )
    assert -3 <= bad < 0 < good <= 3


def test_too_few_beginnings_are_an_error_and_not_an_endless_search() -> None:
    task = load_task("sentiment").build(prompt_words=1)
    with pytest.raises(DataError, match="prompt_words"):
        task.corpus(SIZES, np.random.default_rng(0))


@pytest.mark.parametrize("words", [12, 15])
def test_a_prompt_is_shorter_than_the_shortest_review(words: int) -> None:
    with pytest.raises(RequestError, match="between 1 and 11"):
        load_task("sentiment").build(prompt_words=words)
