"""Sentiment classifiers: the right label, the same for a text in any batch, nothing made up."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from harness.data.identity import fingerprint
from harness.data.load import load_rows
from harness.errors import DataError
from harness.judge.rewards.classifier import Classifier, load_classifier, sentiment_reward
from harness.judge.rewards.labels import positive_index

WORDS = ["<pad>", "<s>", "</s>", "<unk>", *(f"w{i}" for i in range(28))]
SMALL = {
    "vocab_size": len(WORDS), "hidden_size": 32, "num_hidden_layers": 2, "intermediate_size": 32,
    "num_attention_heads": 2, "max_position_embeddings": 24, "pad_token_id": 0, "bos_token_id": 1,
    "eos_token_id": 2,
}  # fmt: skip
MODELS = {
    "bert": (BertForSequenceClassification, BertConfig),
    "roberta": (RobertaForSequenceClassification, RobertaConfig),
    "llama": (LlamaForSequenceClassification, LlamaConfig),
}


def build(folder: Path, kind: str, *, pad: bool = True, **config: Any) -> str:
    """A classifier of random weights, large enough to tell texts apart, saved in a folder."""
    torch.manual_seed(1)
    model_class, config_class = MODELS[kind]
    settings = SMALL | {"id2label": {0: "negative", 1: "positive"}} | config
    model = model_class(config_class(**settings | ({} if pad else {"pad_token_id": None})))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.5)
    model.save_pretrained(folder)
    save_tokenizer(folder, pad=pad)
    return str(folder)


def save_tokenizer(folder: Path, *, pad: bool = True) -> None:
    backend = Tokenizer(models.WordLevel({w: i for i, w in enumerate(WORDS)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>",
        padding_side="left", **({"pad_token": "<pad>"} if pad else {}),
    )  # fmt: skip
    tokenizer.save_pretrained(folder)


def texts(count: int, longest: int) -> list[str]:
    rng = np.random.default_rng(3)
    lengths = rng.integers(1, longest + 1, count)
    return [" ".join(f"w{i}" for i in rng.integers(0, 28, n)) for n in lengths]


@pytest.fixture(scope="module")
def words(shared: Path) -> Classifier:
    return load_classifier(str(shared / "models" / "avgword-imdb-sentiment"))


def copy(shared: Path, folder: Path) -> Path:
    for path in (shared / "models" / "avgword-imdb-sentiment").iterdir():
        shutil.copyfile(path, folder / path.name)
    return folder


def test_it_is_as_right_about_real_reviews_as_its_authors_say(
    words: Classifier, shared: Path
) -> None:
    rows = load_rows(str(shared / "data" / "imdb"), "test", columns=["text", "label"])
    positive = words.probabilities(rows.texts("text")) > 0.5
    right = float(np.mean(positive == (np.array(rows.columns["label"]) == "pos")))
    assert 0.865 < right < 0.885


def test_its_probability_is_the_one_worked_out_by_hand(words: Classifier, shared: Path) -> None:
    folder = shared / "models" / "avgword-imdb-sentiment"
    w = load_file(folder / "model.safetensors")
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    ids = [1, *(vocabulary[word] for word in ("it's", "a", "great", "film")), 2] + [0] * 250
    mean = sum(w["embedding.weight"][i].astype(float) for i in ids) / 256
    hidden = np.maximum(w["dense1.weight"] @ mean + w["dense1.bias"], 0)
    negative, positive = w["dense2.weight"] @ hidden + w["dense2.bias"]
    expected = 1 / (1 + np.exp(negative - positive))
    (found,) = words.probabilities(["  It's a GREAT... film, zzyzx!"])
    assert found == pytest.approx(expected, abs=1e-6)
    assert 0.5 < found < 1


def test_it_reads_the_first_255_words(words: Classifier) -> None:
    head = "fine " * 254
    same, cut, other = words.probabilities([head + "good bad bad", head + "good", head + "bad"])
    assert same == cut != other


def test_order_and_company_of_texts_do_not_matter(words: Classifier) -> None:
    many = [f"a {'good' if i % 3 else 'bad'} film {i}" for i in range(600)]
    together = words.probabilities(many)
    alone = [words.probabilities([many[i]])[0] for i in (0, 1, 255, 256, 599)]
    np.testing.assert_allclose(together[[0, 1, 255, 256, 599]], alone, atol=1e-6)
    assert together[1] > together[0]
    assert words.probabilities([]).shape == (0,)


def test_facts_say_what_was_used(words: Classifier, shared: Path) -> None:
    source = str(shared / "models" / "avgword-imdb-sentiment")
    assert words.facts == {
        "name": source, "revision": fingerprint(source), "labels": ["negative", "positive"],
        "positive": "positive", "positive index": 1, "max tokens": 256,
    }  # fmt: skip
    json.dumps(words.facts)


def test_the_revision_changes_with_one_byte(shared: Path, tmp_path: Path) -> None:
    copy(shared, tmp_path)
    before = load_classifier(str(tmp_path)).facts["revision"]
    weights = tmp_path / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert load_classifier(str(tmp_path)).facts["revision"] != before


@pytest.mark.parametrize(
    ("kind", "pad"), [("bert", True), ("roberta", True), ("llama", True), ("llama", False)]
)
def test_a_text_has_one_probability_in_any_batch(tmp_path: Path, kind: str, pad: bool) -> None:
    classifier = load_classifier(build(tmp_path, kind, pad=pad))
    many = texts(70, 40)
    together = classifier.probabilities(many)
    alone = np.concatenate([classifier.probabilities([text]) for text in many])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert np.ptp(together) > 0.1
    assert ((together >= 0) & (together <= 1)).all()


@pytest.mark.parametrize(("kind", "limit"), [("bert", 24), ("roberta", 23), ("llama", 24)])
def test_texts_are_cut_at_the_last_position_of_the_model(
    tmp_path: Path, kind: str, limit: int
) -> None:
    classifier = load_classifier(build(tmp_path, kind))
    assert classifier.facts["max tokens"] == limit
    long = " ".join(f"w{i % 28}" for i in range(60))
    cut = " ".join(f"w{i % 28}" for i in range(limit - 1))
    shorter = " ".join(f"w{i % 28}" for i in range(limit - 2))
    first, second, third = classifier.probabilities([long, cut, shorter])
    assert first == pytest.approx(second, abs=1e-6)
    assert first != pytest.approx(third, abs=1e-6)


def test_three_labels_give_the_probability_of_the_positive_one(tmp_path: Path) -> None:
    labels = {0: "Positive", 1: "neutral", 2: "negative"}
    source = build(tmp_path, "bert", id2label=labels)
    model = BertForSequenceClassification.from_pretrained(source).eval()
    with torch.no_grad():
        logits = model(torch.tensor([[1, 4, 5]])).logits[0]
    classifier = load_classifier(source)
    expected = float(torch.softmax(logits, -1)[0])
    assert classifier.probabilities(["w0 w1"])[0] == pytest.approx(expected, abs=1e-6)
    assert classifier.facts["positive"] == "Positive"
    other = load_classifier(source, positive="NEUTRAL")
    expected = float(torch.softmax(logits, -1)[1])
    assert other.probabilities(["w0 w1"])[0] == pytest.approx(expected, abs=1e-6)


def test_independent_labels_are_not_made_to_add_up(tmp_path: Path) -> None:
    source = build(tmp_path, "bert", problem_type="multi_label_classification")
    model = BertForSequenceClassification.from_pretrained(source).eval()
    with torch.no_grad():
        expected = float(model(torch.tensor([[1, 4, 5]])).logits[0, 1].sigmoid())
    found = load_classifier(source).probabilities(["w0 w1"])[0]
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("labels", "index"),
    [
        (["NEGATIVE", "POSITIVE"], 1),
        (["pos", "neg"], 0),
        (["negative", "neutral", "positive"], 2),
        (["LABEL_0", "LABEL_1"], 1),
        (["0", "1"], 1),
    ],
)
def test_the_positive_label_is_found_by_its_name(labels: list[str], index: int) -> None:
    assert positive_index("m", labels) == index


@pytest.mark.parametrize(
    "labels",
    [
        ["LABEL_0", "LABEL_1", "LABEL_2"],
        ["1 star", "5 stars"],
        ["LABEL_1", "LABEL_0"],
        ["pos", "positive"],
    ],
)
def test_a_label_that_cannot_be_told_is_asked_for(labels: list[str]) -> None:
    with pytest.raises(DataError, match=f"which label is positive: name one of {labels[0]}, "):
        positive_index("m", labels)
    assert positive_index("m", labels, positive=labels[0].upper()) == 0
    with pytest.raises(DataError, match="'m' has no label 'good': name one of"):
        positive_index("m", labels, positive="good")


def test_a_language_model_is_not_taken_for_a_classifier(tmp_path: Path) -> None:
    LlamaForCausalLM(LlamaConfig(**SMALL)).save_pretrained(tmp_path)
    save_tokenizer(tmp_path)
    with pytest.raises(
        DataError, match=r"not a trained classifier: its weights lack score\.weight"
    ):
        load_classifier(str(tmp_path))


def test_a_reward_model_is_not_taken_for_a_classifier(tmp_path: Path) -> None:
    source = build(tmp_path, "llama", id2label={0: "LABEL_0"})
    with pytest.raises(DataError, match=r"gives a number and no probability \(its labels: LABEL_0"):
        load_classifier(source)


def test_pickled_weights_are_never_read(tmp_path: Path) -> None:
    source = build(tmp_path, "bert")
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(DataError, match=r"no \*\.safetensors \(pytorch_model\.bin is a pickle"):
        load_classifier(source)


def test_code_of_a_model_folder_is_never_run(tmp_path: Path) -> None:
    source = build(tmp_path, "bert")
    ran = tmp_path / "ran"
    (tmp_path / "code.py").write_text(f"open({str(ran)!r}, 'w')\nclass M: pass\nclass C: pass\n")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "novel", "auto_map": {"AutoConfig": "code.C"}}
    config["auto_map"]["AutoModelForSequenceClassification"] = "code.M"
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(DataError, match="is no classifier that can be loaded"):
        load_classifier(source)
    assert not ran.exists()


def test_a_folder_that_is_no_classifier_is_told_what_is_missing(
    shared: Path, tmp_path: Path
) -> None:
    def said(source: Path) -> str:
        with pytest.raises(DataError) as caught:
            load_classifier(str(source))
        assert str(source) in str(caught.value)
        return str(caught.value)

    assert "does not exist" in said(tmp_path / "nope")
    (tmp_path / "notes.txt").write_text("x")
    assert "no config.json" in said(tmp_path)
    (tmp_path / "config.json").write_text('{"kind": "bag of words"}')
    assert "has neither a model_type" in said(tmp_path)
    bert = tmp_path / "bert"
    build(bert, "bert")
    (bert / "tokenizer.json").unlink()
    assert "has no tokenizer: none of tokenizer.json" in said(bert)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda f: (f / "vocab.json").unlink(), "needs vocab.json and model.safetensors"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x"), "needs vocab.json and"),
        (lambda f: edit(f, {"pad_id"}), "config.json lacks pad_id"),
        (lambda f: save_file({"x": np.zeros(1)}, f / "model.safetensors"), "lacks embedding"),
        (lambda f: edit(f, set(), labels=["a", "positive", "b"]), "do not fit together"),
        (lambda f: (f / "vocab.json").write_text('{"a": 10003}'), "do not fit together"),
    ],
)
def test_a_broken_word_vector_folder_is_told_what_is_missing(
    shared: Path, tmp_path: Path, change: Any, problem: str
) -> None:
    change(copy(shared, tmp_path))
    with pytest.raises(DataError, match=problem) as caught:
        load_classifier(str(tmp_path))
    assert str(caught.value).startswith(str(tmp_path))


def edit(folder: Path, without: set[str], **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text()) | changes
    kept = {key: value for key, value in config.items() if key not in without}
    (folder / "config.json").write_text(json.dumps(kept))


def test_a_text_without_tokens_is_refused_where_the_model_needs_one(tmp_path: Path) -> None:
    source = build(tmp_path, "llama")
    tokenizer = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": None}))
    classifier = load_classifier(source)
    for batch in ([""], ["w1 w2", ""]):
        with pytest.raises(DataError, match="finds no token in the text ''"):
            classifier.probabilities(batch)


def test_the_reward_runs_from_minus_3_to_3() -> None:
    np.testing.assert_allclose(sentiment_reward(np.array([0, 0.25, 0.5, 1])), [-3, -1.5, 0, 3])
