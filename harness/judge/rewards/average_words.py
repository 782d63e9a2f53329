"""The smallest sentiment classifier there is: the mean of word vectors and two dense layers."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError
from harness.judge.rewards.labels import FloatArray, LabelModel

KIND = "average word vector sentiment classifier"
TEXTS_AT_ONCE = 256

_SETTINGS = (
    "labels", "max_tokens", "lowercase", "split_regex", "start_id", "pad_id", "unk_id",
)  # fmt: skip
_LAYERS = ("embedding.weight", "dense1.weight", "dense1.bias", "dense2.weight", "dense2.bias")


@dataclass(frozen=True)
class _Words:
    """From a text to ids, as the classifier's config.json says."""

    vocabulary: Mapping[str, int]
    config: Mapping[str, Any]
    split: re.Pattern[str]

    def ids(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Start id, word ids, padding: [texts, max_tokens]."""
        c = self.config
        ids = np.full((len(texts), c["max_tokens"]), c["pad_id"], np.int64)
        for row, text in zip(ids, texts, strict=True):
            known = [self.vocabulary.get(word, c["unk_id"]) for word in self._words(text)]
            line = [c["start_id"], *known][: c["max_tokens"]]
            row[: len(line)] = line
        return ids

    def length(self, text: str) -> int:
        """Of a text that is not cut, with the start."""
        return 1 + len(self._words(text))

    def _words(self, text: str) -> list[str]:
        words = self.split.split(text.lower() if self.config["lowercase"] else text)
        return [word for word in words if word]


def load_average_words(folder: Path, config: Mapping[str, Any]) -> LabelModel:
    """The classifier of a folder with config.json, vocab.json and model.safetensors.

    Raises:
        DataError: a file, a setting or a layer is missing, or the layers do not fit together.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    absent = [setting for setting in _SETTINGS if setting not in config]
    if absent:
        raise DataError(f"{folder}/config.json lacks {', '.join(absent)}")
    try:
        vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
        weights = load_file(folder / "model.safetensors")
    except (OSError, ValueError, SafetensorError) as error:
        raise DataError(
            f"{folder}: an {KIND} needs vocab.json and model.safetensors: {error}"
        ) from error
    absent = [layer for layer in _LAYERS if layer not in weights]
    if absent:
        raise DataError(f"{folder}/model.safetensors lacks {', '.join(absent)}")
    words = _Words(vocabulary, config, re.compile(config["split_regex"]))
    score = partial(_score, words, weights)
    labels = tuple(config["labels"])
    try:
        fits = score([" ".join(vocabulary)]).shape == (1, len(labels))
    except (IndexError, ValueError):
        fits = False
    if not fits:
        raise DataError(f"{folder}: layers, vocabulary and labels do not fit together")
    return LabelModel(labels, config["max_tokens"], score, words.length)


def _score(words: _Words, weights: Mapping[str, Any], texts: Sequence[str]) -> FloatArray:
    chunks = [texts[i : i + TEXTS_AT_ONCE] for i in range(0, len(texts), TEXTS_AT_ONCE)]
    logits = np.concatenate([_logits(words.ids(chunk), weights) for chunk in chunks])
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: FloatArray = odds / odds.sum(axis=1, keepdims=True)
    return probabilities


def _logits(ids: NDArray[np.int64], weights: Mapping[str, Any]) -> FloatArray:
    # The mean is over all positions, padding included: so it was trained.
    mean = weights["embedding.weight"][ids].mean(axis=1)
    hidden = np.maximum(mean @ weights["dense1.weight"].T + weights["dense1.bias"], 0)
    logits: FloatArray = hidden @ weights["dense2.weight"].T + weights["dense2.bias"]
    return logits.astype(np.float64)
