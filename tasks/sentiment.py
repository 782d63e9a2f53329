"""Sentiment: continue a film review so that it praises the film.

A prompt is the beginning of a review, a completion is the rest:

    the acting was not very good , but | the plot was superb . i loved the ending .

Pairs come in MADPO's three quality tiers (arXiv:2510.05342, `utils/data_preprocessing.py` of its
code). high: two samples of the reference policy, close and informative. low: the better of the two
against what really followed, easy and far apart. medium: half of the prompts each. Labels are drawn
by Bradley-Terry on the true reward: Gumbel noise on both rewards, the larger one is chosen.

By default this runs on a world (`worlds/reviews.py`) whose true reward is known exactly. With
`data` and `reward` it runs on real reviews, scored by a real classifier.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from harness.api import (
    Answers,
    Completion,
    Corpus,
    DataError,
    KeptTexts,
    Metric,
    Pair,
    Prompt,
    RequestError,
    Sizes,
    SmallModel,
    Task,
    keep_texts,
    load_classifier,
    load_rows,
    sentiment_reward,
    task,
)

from .worlds import reviews  # noqa: TID251 (the same folder, in a checkout as in a wheel)

Reward = Callable[[Sequence[str]], list[float]]

REWARD = Metric("reward", "reward", "higher", "sentiment of prompt and completion, in [-3, 3]")
SMALL_MODEL = SmallModel(
    words=reviews.VOCABULARY,
    config={
        "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 128,
        "tie_word_embeddings": True,
    },
)  # fmt: skip


TRIES = 20
"""Reviews that are drawn per wanted prompt before the world is said to have too few."""


@task(variants=("high", "medium", "low"), paths={"data": "dataset", "reward": "model"})
def sentiment(
    *,
    data: str | None = None,
    reward: str | None = None,
    positive: str | None = None,
    prompt_words: int = 8,
    label_noise: float = 1.0,
    temperature: float = 1.0,
) -> Task:
    """Continue a film review so that it praises the film; reward in [-3, 3].

    Args:
        data: folder or hub id of reviews with splits `train` and `test` and a column `text`;
            None: the embedded world.
        reward: folder or hub id of a sentiment classifier; needed with `data`.
        positive: the classifier's label that means positive, where its name does not tell.
        prompt_words: words of a review that make the prompt.
        label_noise: scale of the Gumbel noise; 0 labels every pair by its true reward.
        temperature: of the completions, those that make pairs and those that are scored.
    """
    if (data is None) != (reward is None):
        raise RequestError("sentiment.data and sentiment.reward go together: give both or neither")
    if temperature <= 0 or label_noise < 0:
        raise RequestError("sentiment: temperature must be above 0, label_noise 0 or more")
    longest = reviews.SHORTEST - 1 if data is None else 1000
    if not 1 <= prompt_words <= longest:
        raise RequestError(f"sentiment: prompt_words must be between 1 and {longest}")
    true_reward: Reward = _world_reward if reward is None else _classifier_reward(reward, positive)
    return Task(
        corpus=partial(_world_corpus if data is None else partial(_corpus, data), prompt_words),
        pairs=partial(_pairs, true_reward, label_noise),
        score=partial(_score, true_reward),
        metrics=(REWARD,),
        temperature=temperature,
        small_model=SMALL_MODEL if data is None else None,
        parses=reviews.parses if data is None else None,
    )


def _world_reward(texts: Sequence[str]) -> list[float]:
    return [reviews.reward(text) for text in texts]


def _classifier_reward(source: str, positive: str | None) -> Reward:
    """The reward of a classifier that is loaded when the first text is scored."""
    found: list[Callable[[Sequence[str]], np.ndarray[tuple[int], np.dtype[np.float64]]]] = []

    def reward(texts: Sequence[str]) -> list[float]:
        if not found:
            found.append(load_classifier(source, positive=positive).probabilities)
        return [float(r) for r in sentiment_reward(found[0](texts))]

    return reward


def _world_corpus(words: int, sizes: Sizes, rng: np.random.Generator) -> Corpus:
    """Neutral and mixed texts to learn from; prompts from bad reviews, as in MADPO."""
    texts = [reviews.sample(rng, float(rng.uniform(-0.9, 0.9))) for _ in range(sizes.texts)]
    wanted = sizes.train + sizes.validation + sizes.test
    found: dict[str, str] = {}
    for _ in range(TRIES * wanted):
        if len(found) == wanted:
            break
        prompt, rest = reviews.beginning(reviews.sample(rng, -0.8), words)
        found.setdefault(prompt, " " + rest)
    else:
        raise DataError(
            f"the world has too few different beginnings of {words} words: {len(found)} of "
            f"{wanted} were found; raise sentiment.prompt_words or lower budget.pairs"
        )
    return Corpus(texts, _split(list(found.items()), sizes))


def _split(beginnings: Sequence[tuple[str, str]], sizes: Sizes) -> list[Prompt]:
    splits = ["train"] * sizes.train + ["validation"] * sizes.validation + ["test"] * sizes.test
    return [
        Prompt(f"{split}-{i}", split, text, original)  # type: ignore[arg-type]
        for i, (split, (text, original)) in enumerate(zip(splits, beginnings, strict=True))
    ]


def _corpus(data: str, words: int, sizes: Sizes, rng: np.random.Generator) -> Corpus:
    """Texts and prompts of real reviews: disjoint reviews, test prompts from the test split alone.

    Raises:
        DataError: there are fewer usable reviews than the budget asks for.
    """
    splits: dict[str, KeptTexts] = {}
    for split in ("test", "train"):
        rows = load_rows(data, split, columns=["text"])
        held_out = splits["test"].texts if split == "train" else ()
        splits[split] = keep_texts(rows.texts("text", empty=True), rows.place, held_out=held_out)
    shuffled = {
        split: [kept.texts[i] for i in rng.permutation(len(kept.texts))]
        for split, kept in splits.items()
    }
    taken: set[str] = set()
    training = sizes.train + sizes.validation
    prompts = _distinct_beginnings(shuffled["train"], words, training, taken)
    prompts += _distinct_beginnings(shuffled["test"], words, sizes.test, taken)
    used = {text + rest for text, rest in prompts}
    texts = [text for text in shuffled["train"] if text not in used][: sizes.texts]
    facts = {split: kept.facts for split, kept in splits.items()}
    return Corpus(texts, _split(prompts, sizes), {"rule": facts, "revision": rows.revision})


def _distinct_beginnings(
    texts: Sequence[str], words: int, wanted: int, taken: set[str]
) -> list[tuple[str, str]]:
    """The first `wanted` beginnings that nobody has taken yet, with what follows them."""
    found: list[tuple[str, str]] = []
    for text in texts:
        beginning, rest = _beginning(text, words)
        if rest.strip() and beginning not in taken and len(found) < wanted:
            taken.add(beginning)
            found.append((beginning, rest))
    if len(found) < wanted:
        raise DataError(
            f"only {len(found)} of {wanted} prompts could be made from {len(texts)} reviews: "
            "lower budget.pairs, budget.validation_pairs or budget.test_prompts"
        )
    return found


def _beginning(text: str, words: int) -> tuple[str, str]:
    """The first words of a review and all that follows them, space included."""
    found = re.match(rf"\s*(?:\S+\s+){{{words - 1}}}\S+", text)
    end = found.end() if found else len(text)
    return text[:end], text[end:]


def _pairs(  # noqa: PLR0917 (the first two are the task's, the others the contract's)
    reward: Reward,
    noise: float,
    tier: str,
    prompts: Sequence[Prompt],
    answers: Mapping[str, Answers],
    rng: np.random.Generator,
) -> list[Pair]:
    """One labelled pair per prompt, in the tier's make-up, in a random order."""
    found = []
    for split in ("train", "validation"):
        mine = [prompt for prompt in prompts if prompt.split == split]
        easy = {"high": 0, "medium": len(mine) // 2, "low": len(mine)}[tier]
        firsts = _rewarded(reward, [answers[p.prompt_id].samples[0] for p in mine])
        seconds = _rewarded(reward, [answers[p.prompt_id].samples[1] for p in mine])
        originals = _rewarded(reward, [_original(answers[p.prompt_id]) for p in mine[:easy]])
        for i, prompt in enumerate(mine):
            one, other = firsts[i], seconds[i]
            if i < easy:
                one, other = max(one, other, key=lambda answer: answer[1]), originals[i]
            found.append(_labelled(prompt, one, other, noise, rng))
    return [found[i] for i in rng.permutation(len(found))]


def _original(answers: Answers) -> Completion:
    assert answers.original is not None, "a prompt of this task is the beginning of a review"
    return answers.original


def _rewarded(reward: Reward, answers: Sequence[Completion]) -> list[tuple[Completion, float]]:
    return list(zip(answers, reward([a.prompt + a.text for a in answers]), strict=True))


def _labelled(
    prompt: Prompt,
    one: tuple[Completion, float],
    other: tuple[Completion, float],
    noise: float,
    rng: np.random.Generator,
) -> Pair:
    """P(one is chosen) = sigmoid((r(one) - r(other)) / noise): the Gumbel form of Bradley-Terry."""
    gumbel = noise * rng.gumbel(size=2)
    first = one[1] + gumbel[0] >= other[1] + gumbel[1]
    (chosen, chosen_reward), (rejected, rejected_reward) = (one, other) if first else (other, one)
    return Pair.of(prompt, chosen, rejected, (chosen_reward, rejected_reward))


def _score(reward: Reward, completions: Sequence[Completion]) -> list[dict[str, float]]:
    return [{"reward": r} for r in reward([c.prompt + c.text for c in completions])]
