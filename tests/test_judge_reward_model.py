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


CHAT = "{% for m in messages %}{{ 'w1 ' + m['content'] + ' w2 ' }}{% endfor %}"


def long_prompt(answers: tuple[str, str] = ("w3 w4 w5", "w6 w7")) -> Versus:
    return Versus("w9 " * 300 + "w8 ", *answers)


@pytest.mark.parametrize("form", ["joined", "chat template", "text pair", "log-odds"])
def test_of_a_long_prompt_the_end_is_seen_and_of_the_answers_all(tmp_path: Path, form: str) -> None:
    folder = build(tmp_path, "llama", **({} if form == "log-odds" else ONE))
    if form == "chat template":
        (tmp_path / "chat_template.jinja").write_text(CHAT)
    if form == "text pair":
        AutoTokenizer.from_pretrained(folder, sep_token="</s>").save_pretrained(folder)
    judge = load_reward_judge(folder)
    limit = judge.limit
    assert judge.facts["text"] == ("joined" if form == "log-odds" else form)
    assert limit is not None
    assert limit < 300
    versus = long_prompt()
    found = judge([versus])[0].preference
    assert found is not None
    assert found != 0.5
    assert judge.facts["cut"] == {"prompts": 2, "answers": 0}
    for answer in (versus.first, versus.second):
        shown = judge.shown[versus.prompt, answer]
        assert shown.answer == answer
        assert shown.prompt.endswith("w9 w8 ")
        assert limit - 1 <= judge.length(*shown) <= limit, "more is cut than must be"
    # What is far away in the prompt is not seen, so it moves nothing; its end is, and does.
    far, near = versus._replace(prompt="w5 " + versus.prompt), versus.prompt[:-3] + "w5 "
    assert judge([far])[0].preference == pytest.approx(found, abs=1e-6)
    assert judge([versus._replace(prompt=near)])[0].preference != pytest.approx(found, abs=1e-6)


def test_of_an_answer_that_is_too_long_the_beginning_is_seen(tmp_path: Path) -> None:
    judge = load_reward_judge(build(tmp_path, "llama", **ONE))
    one, other, same = "w3 w4 " + "w1 " * 300, "w7 w8 " + "w1 " * 300, "w3 w4 " + "w1 " * 301
    differs, equal, itself = judge(
        [Versus("w2 ", one, other), Versus("w2 ", one, same), Versus("w2 ", one, one)]
    )
    assert differs.preference not in (None, 0.5)
    assert (equal.preference, itself.preference) == (None, 0.5)
    assert equal.said == f"in its {judge.limit} tokens both answers are the same"
    assert judge.facts["cut"] == {"prompts": 0, "answers": 3}


def test_what_fits_is_not_cut(tmp_path: Path) -> None:
    judge = load_reward_judge(build(tmp_path, "llama", **ONE))
    judge(some())
    assert judge.facts["cut"] == {"prompts": 0, "answers": 0}


def test_a_classifier_of_word_vectors_sees_the_answer_after_a_long_prompt(shared: Path) -> None:
    judge = load_reward_judge(str(shared / "models" / "avgword-imdb-sentiment"))
    prompt = "the film was shown in the evening . " * 200
    (reading,) = judge([Versus(prompt, "great wonderful superb " * 30, "awful boring bad " * 30)])
    assert reading.preference is not None
    assert reading.preference > 0.9
    assert judge.facts["cut"]["prompts"] == 2
