"""A reward model as a judge: the answer with the higher reward, by Bradley-Terry."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harness.contracts.judge import Reading, Versus
from harness.data.identity import digest, fetch, locate
from harness.errors import DataError
from harness.judge.rewards.classifier import HUB_FILES, load_classifier
from harness.judge.rewards.labels import FloatArray
from harness.judge.rewards.sequence import Sequences, open_classifier

Form = Literal["chat template", "text pair", "joined"]
"""Of the text that is scored: the tokenizer's chat template where it has one; prompt and answer as
a pair where it knows a separator; else one after the other."""

_HUB_FILES = (*HUB_FILES, "*.jinja")
_SMALLEST = 1e-12


@dataclass(frozen=True)
class RewardJudge:
    """Callable as a judge: P(first better) = sigmoid(reward of first - reward of second).

    Attributes:
        facts: what a manifest says about the model.
        rewards: (prompts, answers) to one number each.
    """

    facts: Mapping[str, Any]
    rewards: Callable[[Sequence[str], Sequence[str]], FloatArray]

    def __call__(self, versus: Sequence[Versus]) -> list[Reading]:
        """One reading for each comparison; every answer is scored once, wherever it is shown."""
        distinct = dict.fromkeys((v.prompt, text) for v in versus for text in (v.first, v.second))
        prompts, answers = [p for p, _ in distinct], [a for _, a in distinct]
        rewards = self.rewards(prompts, answers) if distinct else np.zeros(0)
        of = dict(zip(distinct, (float(r) for r in rewards), strict=True))
        found = []
        for prompt, first, second in versus:
            one, other = of[prompt, first], of[prompt, second]
            # Half a tangent and not 1 / (1 + exp(-x)), which overflows.
            preference = 0.5 + 0.5 * float(np.tanh((one - other) / 2))
            found.append(Reading(preference, f"rewards {one:.4g} and {other:.4g}"))
        return found


def load_reward_judge(source: str) -> RewardJudge:
    """The judge of a folder or hub id: one output is the reward, of two the log-odds are.

    Raises:
        DataError: it is no classifier, has more than two labels, or lacks files.
    """
    place = locate(source)
    folder = place if isinstance(place, Path) else fetch(place, "model", _HUB_FILES)
    revision = digest(folder) if isinstance(place, Path) else folder.name
    if _outputs(folder) != 1:
        return _log_odds(source)
    model, tokenizer, limit = open_classifier(source, folder)
    form = _form(tokenizer)
    facts = {"name": source, "revision": revision, "text": form, "max tokens": limit}
    return RewardJudge(facts, partial(_rewards, Sequences(model, tokenizer, limit), form))


def _form(tokenizer: Any) -> Form:
    """How a tokenizer puts a prompt and an answer together."""
    if tokenizer.chat_template:
        return "chat template"
    return "text pair" if tokenizer.sep_token else "joined"


def _rewards(
    sequences: Sequences, form: Form, prompts: Sequence[str], answers: Sequence[str]
) -> FloatArray:
    """Rewards, [texts], whatever the batches."""
    both = zip(prompts, answers, strict=True)
    texts = [_together(sequences.tokenizer, form, prompt, answer) for prompt, answer in both]
    pairs = answers if form == "text pair" else None
    rewards = np.empty(len(texts))
    for batch in sequences.batches([len(p) + len(a) for p, a in zip(texts, answers, strict=True)]):
        logits = sequences.logits(
            [texts[i] for i in batch], pairs and [pairs[i] for i in batch],
            pad=sequences.can_pad(), special=form != "chat template",
        )  # fmt: skip
        rewards[batch] = logits[:, 0].cpu()
    return rewards


def _together(tokenizer: Any, form: Form, prompt: str, answer: str) -> str:
    if form == "text pair":
        return prompt
    if form == "joined":
        return prompt + answer
    turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": answer}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False))


def _outputs(folder: Path) -> int | None:
    """How many outputs a folder's config declares; None where it says nothing of it."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # the loader has the words for it
    labels = config.get("id2label") if isinstance(config, dict) else None
    return len(labels) if labels else None


def _log_odds(source: str) -> RewardJudge:
    classifier = load_classifier(source)
    if len(classifier.facts["labels"]) != 2:
        raise DataError(
            f"'{source}' has {len(classifier.facts['labels'])} labels: a reward model has one "
            "output, or two labels whose log-odds are the reward"
        )

    def rewards(prompts: Sequence[str], answers: Sequence[str]) -> FloatArray:
        texts = [prompt + answer for prompt, answer in zip(prompts, answers, strict=True)]
        p = np.clip(classifier.probabilities(texts), _SMALLEST, 1 - _SMALLEST)
        return np.asarray(np.log(p) - np.log1p(-p))

    return RewardJudge({**classifier.facts, "text": "joined"}, rewards)
