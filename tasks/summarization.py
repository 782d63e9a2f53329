"""Summarization: say in one sentence what a Reddit post says.

A prompt is a post with a marker behind it, a completion its summary:

    somebody broke my laptop . my boss did it . i paid 300 dollars . tl;dr : | broken laptop , by my
    boss , cost 300 dollars .

Policies are compared with the reference summary at decoding temperatures from 0 to 1, the sweep of
MADPO's second version (arXiv:2510.05342v2). Pairs are two samples of the reference policy; labels
are drawn by Bradley-Terry on the true reward: Gumbel noise on both, the larger one is chosen.

By default this runs on a world (`worlds/posts.py`) whose true reward is known exactly. With `data`
it runs on real posts with their authors' summaries; preferences then are people's `comparisons`, or
those of a classifier, `reward`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from harness.api import (
    Answers,
    Completion,
    Contest,
    Metric,
    Pair,
    Prompt,
    RequestError,
    SmallModel,
    Task,
    load_classifier,
    task,
)

from .readers import post_corpus  # noqa: TID251 (the same folder, in a checkout as in a wheel)
from .worlds import posts  # noqa: TID251

Reward = Callable[[Sequence[Completion]], list[float]]
Pairs = Callable[
    [str, Sequence[Prompt], Mapping[str, Answers], np.random.Generator],
    list[Pair],
]

WORLD_METRICS = (
    Metric(
        "reward", "reward", "higher", "facts covered minus facts invented, void phrases, words / 10"
    ),
    Metric("coverage", "share", "higher", "facts of the post that the summary states"),
    Metric("invented", "facts", "lower", "facts that the summary states and the post does not"),
)
ROUGE = (
    Metric("rouge_1", "share", "higher", "ROUGE-1 F1 of stemmed words with the reference summary"),
    Metric("rouge_l", "share", "higher", "ROUGE-L F1 of stemmed words with the reference summary"),
)
REWARD = Metric("reward", "log-odds", "higher", "of the classifier's positive label")
SMALL_MODEL = SmallModel(
    words=posts.VOCABULARY,
    config={
        "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 128,
        # With the usual 0.02, attention to the post's facts is not found within the warm start.
        "initializer_range": 0.1,
        "tie_word_embeddings": True,
    },
)  # fmt: skip

NOISE = 1.0
SURE = 1e-6
"""A classifier's probability is cut to [1e-6, 1 - 1e-6], so that its log-odds are finite."""


@task(paths={"data": "dataset", "comparisons": "dataset", "reward": "model"})
def summarization(
    *,
    data: str | None = None,
    comparisons: str | None = None,
    reward: str | None = None,
    positive: str | None = None,
    label_noise: float = NOISE,
    temperature: float = 1.0,
    temperatures: str = "0,0.25,0.5,0.75,1",
) -> Task:
    """Summarise a post; win rate against the reference summary over decoding temperatures.

    Real posts are longer than the small worlds' texts: raise `budget.max_prompt_tokens` and
    `budget.warm_start.max_tokens` with them, else the beginnings of posts and the summaries to
    learn from are cut off.

    Args:
        data: folder or hub id of posts with splits `train` and `test` and columns `subreddit`,
            `title`, `post`, `summary`, or `prompt` and `completion` or `label`; None: the embedded
            world.
        comparisons: folder or hub id with a split `train` of people's comparisons, in the columns
            `info`, `summaries`, `choice`, or `prompt`, `chosen`, `rejected`; pairs are these.
        reward: folder or hub id of a classifier of prompt and summary; it labels pairs where there
            are no comparisons, and is a metric.
        positive: the classifier's label that means a good summary, where its name does not tell.
        label_noise: scale of the Gumbel noise; 0 labels every pair by its reward.
        temperature: of the samples that make pairs.
        temperatures: of the completions that are scored, separated by commas; 0 is greedy.
    """
    swept = _temperatures(temperatures)
    if temperature <= 0 or label_noise < 0:
        raise RequestError("summarization: temperature must be above 0, label_noise 0 or more")
    if data is None:
        _refuse_without_data(comparisons, reward, positive)
        return Task(
            corpus=posts.corpus, pairs=partial(_pairs, _world_reward, label_noise),
            score=_score_world, metrics=(*WORLD_METRICS, *ROUGE), temperature=temperature,
            temperatures=swept, contest=Contest("summary", rule=posts.judge),
            small_model=SMALL_MODEL, parses=posts.parses,
        )  # fmt: skip
    _refuse_what_is_not_read(comparisons, reward, positive, label_noise)
    classify = None if reward is None else _classifier_reward(reward, positive)
    return Task(
        corpus=partial(post_corpus.make_corpus, data, comparisons),
        pairs=_real_pairs(comparisons, classify, label_noise),
        score=partial(_score, classify),
        metrics=ROUGE if classify is None else (REWARD, *ROUGE),
        samples=0 if comparisons is not None else 2,
        temperature=temperature,
        temperatures=swept,
        contest=Contest("summary"),
    )


def _temperatures(text: str) -> tuple[float, ...]:
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or len(set(found)) < len(found) or not all(0 <= t < math.inf for t in found):
        raise RequestError(
            f"summarization.temperatures must be different numbers from 0 on, separated by commas, "
            f"such as '0,0.5,1', not {text!r}"
        )
    return found


def _refuse_without_data(*settings: str | None) -> None:
    names = ("comparisons", "reward", "positive")
    for name, value in zip(names, settings, strict=True):
        if value is not None:
            raise RequestError(
                f"summarization.{name} goes with summarization.data: the posts of the embedded "
                f"world have their own truth. Give both, or leave {name} out"
            )


def _refuse_what_is_not_read(
    comparisons: str | None, reward: str | None, positive: str | None, label_noise: float
) -> None:
    if reward is None and positive is not None:
        raise RequestError("summarization.positive names a label of summarization.reward: give it")
    if comparisons is not None and label_noise != NOISE:
        raise RequestError(
            "summarization.label_noise moves no label of summarization.comparisons: those are "
            "people's. Leave one of them out"
        )


def _real_pairs(comparisons: str | None, reward: Reward | None, noise: float) -> Pairs:
    if comparisons is not None:
        source = comparisons
        return lambda _variant, prompts, _answers, rng: post_corpus.people_pairs(
            source, prompts, rng
        )
    if reward is None:
        raise RequestError(
            "summarization.data holds posts and no preferences: name people's comparisons in "
            "summarization.comparisons, or a classifier in summarization.reward"
        )
    return partial(_pairs, reward, noise)


def _world_reward(completions: Sequence[Completion]) -> list[float]:
    return [posts.reward(c.prompt, c.text) for c in completions]


def _classifier_reward(source: str, positive: str | None) -> Reward:
    """Log-odds of the positive label of prompt and summary, in nats; loaded for the first text."""
    found: list[Callable[[Sequence[str]], Any]] = []

    def reward(completions: Sequence[Completion]) -> list[float]:
        if not found:
            found.append(load_classifier(source, positive=positive).probabilities)
        sure = np.clip(found[0]([c.prompt + c.text for c in completions]), SURE, 1 - SURE)
        return [float(odds) for odds in np.log(sure) - np.log1p(-sure)]

    return reward


def _pairs(
    reward: Reward,
    noise: float,
    _variant: str,
    prompts: Sequence[Prompt],
    answers: Mapping[str, Answers],
    rng: np.random.Generator,
) -> list[Pair]:
    """One labelled pair of two samples per prompt, in a random order."""
    firsts = [answers[prompt.prompt_id].samples[0] for prompt in prompts]
    seconds = [answers[prompt.prompt_id].samples[1] for prompt in prompts]
    rewards = np.array([reward(firsts), reward(seconds)])
    noisy = rewards + noise * rng.gumbel(size=rewards.shape)
    found = []
    for i, prompt in enumerate(prompts):
        both = [(firsts[i], rewards[0, i]), (seconds[i], rewards[1, i])]
        (chosen, high), (rejected, low) = both if noisy[0, i] >= noisy[1, i] else both[::-1]
        found.append(Pair.of(prompt, chosen, rejected, (float(high), float(low))))
    return [found[i] for i in rng.permutation(len(found))]


def _score_world(completions: Sequence[Completion]) -> list[dict[str, float]]:
    truths = [posts.truth(c.prompt, c.text) for c in completions]
    return [
        {"reward": t.reward, "coverage": t.coverage, "invented": float(t.invented), **shared}
        for t, shared in zip(truths, _rouge(completions), strict=True)
    ]


def _score(reward: Reward | None, completions: Sequence[Completion]) -> list[dict[str, float]]:
    scores = _rouge(completions)
    if reward is None:
        return scores
    return [
        {"reward": value, **shared}
        for value, shared in zip(reward(completions), scores, strict=True)
    ]


def _rouge(completions: Sequence[Completion]) -> list[dict[str, float]]:
    """F1 against the reference summaries; words are stemmed, and only a-z and digits are read."""
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    found = [scorer.score(c.original, c.text) for c in completions]
    return [
        {"rouge_1": float(f["rouge1"].fmeasure), "rouge_l": float(f["rougeL"].fmeasure)}
        for f in found
    ]
