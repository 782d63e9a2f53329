"""How positive a text is, by a sentiment classifier: from a folder or a hub id."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.data.identity import digest, fetch, locate
from harness.errors import DataError
from harness.judge.rewards.average_words import KIND, load_average_words
from harness.judge.rewards.labels import FloatArray, positive_index

HUB_FILES = ("*.json", "*.txt", "*.model", "model*.safetensors")


@dataclass(frozen=True)
class Classifier:
    """Texts to the probability that they are positive.

    Attributes:
        facts: what a manifest says about it: name, revision (a digest or a commit), labels, the
            label that is taken as positive, and after how many tokens texts are cut.
        score: texts to the probability of each label, [texts, labels].
        length: tokens of a text before it is cut.
    """

    facts: Mapping[str, Any]
    score: Callable[[Sequence[str]], FloatArray]
    length: Callable[[str], int]

    def probabilities(self, texts: Sequence[str]) -> FloatArray:
        """Probability in [0, 1] of the positive label for each text, [texts].

        Raises:
            DataError: a text has no tokens, and this classifier cannot judge nothing.
        """
        if not texts:
            return np.zeros(0)
        return self.score(texts)[:, self.facts["positive index"]]


def sentiment_reward(probability: FloatArray) -> FloatArray:
    """The true reward of MADPO's sentiment task, in [-3, 3]: 6 (p - 0.5).

    `p` is the probability of the positive label alone, also where there is a neutral one
    (arXiv:2510.05342, the authors' notebooks).
    """
    return 6 * (probability - 0.5)


def load_classifier(source: str, *, positive: str | None = None) -> Classifier:
    """A classifier in fp32, from a folder or a hub id; safetensors only, no remote code.

    Args:
        source: a sequence classifier of `transformers`, or a folder of the average word vector
            kind, whose config.json says so.
        positive: the label that means positive, where its name does not tell.

    Raises:
        DataError: it is neither of the two kinds, lacks weights, a tokenizer or a classification
            head, or it cannot be told which label is the positive one.
    """
    place = locate(source)
    folder = place if isinstance(place, Path) else fetch(place, "model", HUB_FILES)
    revision = digest(folder) if isinstance(place, Path) else folder.name
    config = _config(source, folder)
    if config.get("kind") == KIND:
        model = load_average_words(folder, config)
    else:
        from harness.judge.rewards.sequence import load_sequence_classifier

        model = load_sequence_classifier(source, folder)
    index = positive_index(source, model.labels, positive)
    facts = {
        "name": source,
        "revision": revision,
        "labels": list(model.labels),
        "positive": model.labels[index],
        "positive index": index,
        "max tokens": model.max_tokens,
    }
    return Classifier(facts, model.score, model.length)


def _config(source: str, folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"'{source}' has no config.json that can be read: {error}") from error
    if not isinstance(config, dict) or (config.get("kind") != KIND and "model_type" not in config):
        raise DataError(
            f"'{source}' is no classifier: its config.json has neither a model_type, as a "
            f"`transformers` model has, nor the kind '{KIND}'"
        )
    return config
