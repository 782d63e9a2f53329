"""A reward model as a judge: the answer with the higher reward, by Bradley-Terry."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from harness.contracts.judge import Reading, Versus
from harness.data.identity import digest, fetch, locate
from harness.errors import DataError
from harness.judge.rewards.classifier import HUB_FILES, load_classifier
from harness.judge.rewards.labels import FloatArray
from harness.judge.rewards.room import Length, Shown, make_room
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
        about: the model, for a manifest.
        rewards: (prompts, answers) to one number each.
        length: of a prompt and an answer as the model gets them.
        limit: tokens that it takes; None where there is no limit.
        shown: what it saw of the prompts and answers that are too long.
    """

    about: Mapping[str, Any]
    rewards: Callable[[Sequence[str], Sequence[str]], FloatArray]
    length: Length
    limit: int | None
    shown: dict[tuple[str, str], Shown] = field(default_factory=dict)

    def __call__(self, versus: Sequence[Versus]) -> list[Reading]:
        """One reading for each comparison; every answer is scored once, wherever it is shown."""
        distinct = dict.fromkeys((v.prompt, text) for v in versus for text in (v.first, v.second))
        fitting = [make_room(*both, self.length, self.limit) for both in distinct]
        self.shown.update((b, s) for b, s in zip(distinct, fitting, strict=True) if b != s)
        prompts, answers = [p for p, _ in fitting], [a for _, a in fitting]
        rewards = self.rewards(prompts, answers) if distinct else np.zeros(0)
        of = dict(zip(distinct, (float(r) for r in rewards), strict=True))
        return [
            self._reading(one, of[one.prompt, one.first], of[one.prompt, one.second])
            for one in versus
        ]

    def _reading(self, versus: Versus, first: float, second: float) -> Reading:
        one, other = (self.shown.get((versus.prompt, a)) for a in (versus.first, versus.second))
        if one is not None and one == other and versus.first != versus.second:
            return Reading(None, f"in its {self.limit} tokens both answers are the same")
        # Half a tangent and not 1 / (1 + exp(-x)), which overflows.
        preference = 0.5 + 0.5 * float(np.tanh((first - second) / 2))
        return Reading(preference, f"rewards {first:.4g} and {second:.4g}")

    @property
    def facts(self) -> dict[str, Any]:
        """What a manifest says about the model, and of how many texts it saw only a part."""
        answers = sum(answer != shown.answer for (_, answer), shown in self.shown.items())
        cut = {"prompts": len(self.shown) - answers, "answers": answers}
        return {**self.about, "cut": cut}


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
    about = {"name": source, "revision": revision, "text": form, "max tokens": limit}
    sequences = Sequences(model, tokenizer, limit)
    rewards, length = partial(_rewards, sequences, form), partial(_length, sequences, form)
    return RewardJudge(about, rewards, length, limit)


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


def _length(sequences: Sequences, form: Form, prompt: str, answer: str) -> int:
    text = _together(sequences.tokenizer, form, prompt, answer)
    pair = answer if form == "text pair" else None
    return sequences.length(text, pair, special=form != "chat template")


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

    about = {**classifier.facts, "text": "joined"}
    return RewardJudge(about, rewards, lambda p, a: classifier.length(p + a), about["max tokens"])
