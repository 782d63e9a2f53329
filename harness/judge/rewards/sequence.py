"""Sequence classifiers of `transformers`: batched, cut to the model's limit, fp32."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer
from transformers.utils import logging

from harness.errors import DataError
from harness.judge.rewards.labels import FloatArray, LabelModel

TEXTS_AT_ONCE = 32

_TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
# A tokenizer without a limit says 10^30.
_NO_LIMIT = 10**9


def load_sequence_classifier(source: str, folder: Path) -> LabelModel:
    """The classifier of a folder with config.json, tokenizer files and *.safetensors.

    Raises:
        DataError: something is missing, or the model is not a classifier.
    """
    model, tokenizer, limit = open_classifier(source, folder)
    labels = tuple(str(model.config.id2label[i]) for i in range(model.config.num_labels))
    if len(labels) < 2 or model.config.problem_type == "regression":
        raise DataError(
            f"'{source}' gives a number and no probability (its labels: {', '.join(labels)}); "
            "name a classifier with at least two labels"
        )
    sequences = Sequences(model, tokenizer, limit)
    return LabelModel(labels, limit, sequences.score, sequences.length)


def open_classifier(source: str, folder: Path) -> tuple[Any, Any, int | None]:
    """Model, tokenizer and limit of tokens of a folder.

    Raises:
        DataError: something is missing, or the weights hold no head of a classifier.
    """
    _need_files(source, folder)
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
            model, info = AutoModelForSequenceClassification.from_pretrained(
                folder,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise DataError(f"'{source}' is no classifier that can be loaded: {reason}") from error
    # Missing weights are filled with random ones: any language model would seem to classify.
    if info["missing_keys"]:
        names = ", ".join(sorted(info["missing_keys"]))
        raise DataError(f"'{source}' is not a trained classifier: its weights lack {names}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return model.eval().to(device), tokenizer, _max_tokens(model, tokenizer)


def _need_files(source: str, folder: Path) -> None:
    if not any(folder.glob("*.safetensors")):
        pickled = ", ".join(sorted(path.name for path in folder.glob("*.bin")))
        reason = f" ({pickled} is a pickle and never read: save it as safetensors)"
        raise DataError(f"'{source}' has no *.safetensors{reason if pickled else ''}")
    # Without files, `transformers` makes a tokenizer that knows no word, and says nothing.
    if not any(any(folder.glob(name)) for name in _TOKENIZERS):
        raise DataError(f"'{source}' has no tokenizer: none of {', '.join(_TOKENIZERS)} is there")


@dataclass(frozen=True)
class Sequences:
    """Texts to logits in batches.

    Attributes:
        limit: after how many tokens a text is cut; None where there is no limit.
    """

    model: Any
    tokenizer: Any
    limit: int | None

    def score(self, texts: Sequence[str]) -> FloatArray:
        """Probabilities, [texts, labels], whatever the batches.

        Raises:
            DataError: a text has no tokens.
        """
        probabilities = np.empty((len(texts), self.model.config.num_labels))
        for batch in self.batches([len(text) for text in texts]):
            logits = self.logits([texts[i] for i in batch], None, pad=self.can_pad())
            multi = self.model.config.problem_type == "multi_label_classification"
            probabilities[batch] = (logits.sigmoid() if multi else logits.softmax(-1)).cpu()
        return probabilities

    def length(self, text: str, pair: str | None = None, *, special: bool = True) -> int:
        """Tokens of a text, or of two as a pair, before anything is cut."""
        encoded = self.tokenizer(text, text_pair=pair, add_special_tokens=special, verbose=False)
        return len(encoded["input_ids"])

    def batches(self, lengths: Sequence[int]) -> Iterator[list[int]]:
        """Rows by length, so that little is padded."""
        order = sorted(range(len(lengths)), key=lambda i: lengths[i])
        size = TEXTS_AT_ONCE if self.can_pad() else 1
        for start in range(0, len(order), size):
            yield order[start : start + size]

    def can_pad(self) -> bool:
        """Whether batches may be padded.

        A model that looks for the last token must mean the same padding as the tokenizer.
        """
        pad = self.tokenizer.pad_token_id
        return pad is not None and pad == getattr(self.model.config, "pad_token_id", None)

    @torch.inference_mode()
    def logits(
        self, texts: Sequence[str], pairs: Sequence[str] | None, *, pad: bool, special: bool = True
    ) -> torch.Tensor:
        """Of one batch, [texts, outputs], in double precision.

        Raises:
            DataError: a text has no tokens.
        """
        encoded = self.tokenizer(
            list(texts),
            text_pair=pairs,
            add_special_tokens=special,
            padding=pad,
            padding_side="right",
            truncation=self.limit is not None,
            max_length=self.limit,
            return_attention_mask=True,
            return_tensors="pt",
        )
        for text, mask in zip(texts, encoded["attention_mask"], strict=True):
            if not mask.sum():
                raise DataError(f"the classifier's tokenizer finds no token in the text {text!r}")
        known = inspect.signature(self.model.forward).parameters
        inputs = {k: v.to(self.model.device) for k, v in encoded.items() if k in known}
        logits: torch.Tensor = self.model(**inputs).logits.double()
        return logits


def _max_tokens(model: Any, tokenizer: Any) -> int | None:
    limits = [tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None)]
    for name, module in model.named_modules():
        # RoBERTa and its kin count positions from the padding id on, so that 514 mean 512.
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            limits.append(module.num_embeddings - padding - 1)
    return min((int(n) for n in limits if n is not None and 0 < n < _NO_LIMIT), default=None)


@contextmanager
def _quiet() -> Iterator[None]:
    """`transformers` without its load report and progress bar; as it was, afterwards."""
    log: Any = logging  # untyped there
    verbosity, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bars:
            log.enable_progress_bar()
