"""A reward model as a judge: Bradley-Terry on its rewards, whatever shape its text has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from harness.backends import JudgeSettings
from harness.contracts.judge import Versus
from harness.contracts.task import Contest
from harness.errors import DataError
from harness.judge.both_orders import Match, both_orders
from harness.judge.judges import open_judge
from harness.judge.rewards.reward_model import load_reward_judge

from .test_classifier import build, texts

ONE = {"id2label": {0: "LABEL_0"}}


def some(count: int = 9) -> list[Versus]:
    words = texts(3 * count, 5)
    return [
        Versus(*(words[i] for i in (row, row + count, row + 2 * count))) for row in range(count)
    ]


def reward(folder: str, text: str, pair: str | None = None, **how: Any) -> float:
    """Alone, by the library itself."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    encoded = tokenizer(text, pair, return_tensors="pt", **how)
    encoded.pop("token_type_ids", None)
    with torch.no_grad():
        return float(model(**encoded).logits[0, 0])


def expected(folder: str, versus: Sequence[Versus]) -> list[float]:
    return [
        1
        / (1 + math.exp(-reward(folder, v.prompt + v.first) + reward(folder, v.prompt + v.second)))
        for v in versus
    ]


@pytest.mark.parametrize("kind", ["llama", "roberta"])
def test_a_preference_is_the_logistic_function_of_the_rewards(tmp_path: Path, kind: str) -> None:
    folder = build(tmp_path, kind, **ONE)
    judge = load_reward_judge(folder)
    found = [reading.preference for reading in judge(some())]
    assert found == pytest.approx(expected(folder, some()), abs=1e-5)
    assert max(p or 0 for p in found) - min(p or 0 for p in found) > 0.1
    assert judge.facts["text"] == "joined"
    assert judge.facts["revision"].startswith("sha256:")


def test_the_order_of_the_answers_means_nothing_to_it(tmp_path: Path) -> None:
    judge = load_reward_judge(build(tmp_path, "llama", **ONE))
    matches = [Match(str(i), 0, 1.0, *versus) for i, versus in enumerate(some())]
    for verdict in both_orders(judge, matches).verdicts:
        assert verdict.shown_first == pytest.approx(verdict.shown_second, abs=1e-12)


def test_a_chat_template_is_used_where_there_is_one(tmp_path: Path) -> None:
    folder = build(tmp_path, "llama", **ONE)
    chat = "{% for m in messages %}{{ 'w1 ' + m['content'] + ' w2 ' }}{% endfor %}"
    (tmp_path / "chat_template.jinja").write_text(chat)
    judge = load_reward_judge(folder)
    assert judge.facts["text"] == "chat template"
    (one,) = some(1)
    texts = [f"w1 {one.prompt} w2 w1 {answer} w2 " for answer in (one.first, one.second)]
    rewards = [reward(folder, text, add_special_tokens=False) for text in texts]
    wanted = 1 / (1 + math.exp(rewards[1] - rewards[0]))
    assert judge([one])[0].preference == pytest.approx(wanted, abs=1e-5)


def test_two_labels_give_their_log_odds(tmp_path: Path) -> None:
    folder = build(tmp_path, "llama")
    judge = load_reward_judge(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    (one,) = some(1)
    odds = []
    for answer in (one.first, one.second):
        encoded = tokenizer(one.prompt + answer, return_tensors="pt")
        encoded.pop("token_type_ids", None)
        logits = model(**encoded).logits[0].detach()
        odds.append(float(logits[1] - logits[0]))
    wanted = 1 / (1 + math.exp(odds[1] - odds[0]))
    assert judge([one])[0].preference == pytest.approx(wanted, abs=1e-5)


def test_three_labels_are_no_reward(tmp_path: Path) -> None:
    labels = {0: "negative", 1: "neutral", 2: "positive"}
    folder = build(tmp_path, "llama", id2label=labels)
    with pytest.raises(DataError, match="has 3 labels: a reward model has one output"):
        load_reward_judge(folder)


def test_a_classifier_of_sentiment_can_judge_too(shared: Path) -> None:
    judge = load_reward_judge(str(shared / "models" / "avgword-imdb-sentiment"))
    good, bad = judge([Versus("a film ", "great", "awful"), Versus("a film ", "awful", "great")])
    assert good.preference is not None
    assert good.preference > 0.5 > (bad.preference or 0)


def test_settings_name_it_and_its_content_is_in_the_facts(tmp_path: Path) -> None:
    folder = build(tmp_path, "llama", **ONE)
    settings = JudgeSettings(kind="reward-model", model=folder)
    with open_judge(settings, Contest("summary"), tmp_path) as opened:
        assert opened.facts()["revision"].startswith("sha256:")
        assert opened.judge(some()) == opened.again()(some())
        assert opened.judge([]) == []
