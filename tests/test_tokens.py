"""Tokens: what is trained on is what was said, within its limits, and nothing is lost uncounted."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from harness.contracts.task import Corpus, SmallModel
from harness.data import token_store
from harness.data.corpus import _checked
from harness.data.ragged import create_ragged, load_ragged, save_ragged
from harness.data.token_store import (
    CrossedPairs,
    StoredPairs,
    load_pairs,
    save_pairs,
    token_counts,
    tokenise_pairs,
)
from harness.data.tokens import Limits, Overlong, TokenPair, TokenRules, tokenise
from harness.errors import DataError
from harness.records import Completion, Pair, Prompt, read_jsonl, write_jsonl
from harness.store.stage import Work
from harness.train.policy import build_small
from harness.train.warm_start import _sequences

from .models import LIMITS, SHAPE, WORDS, make_world, some_pairs

WIDE = Limits(1000, 1000, "cut")

PROMPTS = (
    "The", "The ", "The\n", "a'", "1", "\U0001f642", "e\u0301", "two  spaces", " lead", "\n",
    "ends in a special token </s>", "<|endoftext|>", "no\u00a0break", "(", "http://",
)  # fmt: skip
ANSWERS = (
    "abc", " abc", "  abc", "\nabc", "\n\n abc", "' s", "'s great", ",", " ", "   ", "\t x",
    "\u00e9", "e\u0301 x", "\U0001f642ok", " \U0001f642", "\U0001f468\u200d\U0001f469", "<s>",
    "</s>", " </s> x", "<|endoftext|>", " <|endoftext|>", "a<|endoftext|>b", "<unk>",
    "\u00dcn\u00ef", "\u200b", "\x85y", "x\r\ny", "ing", " ing", "ends in a space ",
    "ends in lines\n\n", "\u2581", "\u2581x", "\ufeffx",
)  # fmt: skip
"""Texts whose ends like to merge, to vanish, or to be taken for something else."""


@pytest.fixture(scope="module")
def words() -> TokenRules:
    """The tokenizer of the embedded worlds."""
    return TokenRules.of(build_small(SmallModel(WORDS, SHAPE), seed=0)[1])


@pytest.fixture(scope="module")
def normalising() -> TokenRules:
    """A byte-level tokenizer that composes characters first, as Qwen's does."""
    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|end|>"], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    backend.train_from_iterator(["the film is fine and the plot is good"] * 3, trainer)
    return TokenRules.of(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>"))


@pytest.fixture(scope="module")
def stories(shared: Path) -> TokenRules:
    """SentencePiece, with a space before every text and a BOS."""
    return of(shared, "stories260k-llama")


@pytest.fixture(scope="module")
def gpt2(shared: Path) -> TokenRules:
    """Byte-level, without a BOS."""
    return of(shared, "gpt2-tokenizer")


def of(shared: Path, name: str) -> TokenRules:
    return TokenRules.of(AutoTokenizer.from_pretrained(shared / "models" / name))


@pytest.fixture(params=["words", "normalising", "stories", "gpt2"])
def rules(request: pytest.FixtureRequest) -> TokenRules:
    found: TokenRules = request.getfixturevalue(request.param)
    return found


# ---- The contract of a tokenizer


def test_the_contract_is_found_by_trying(
    words: TokenRules, stories: TokenRules, gpt2: TokenRules, normalising: TokenRules
) -> None:
    assert (words.bos, words.eos, words.pad) == (1, 2, 0)
    assert (stories.bos, stories.eos, stories.pad) == (1, 2, 0)
    # It has a bos_token and never uses it; and no padding, for which any id does.
    assert (gpt2.bos, gpt2.eos, gpt2.pad) == (None, 50256, 50256)
    assert (normalising.bos, normalising.eos, normalising.pad) == (None, 0, 0)


def test_a_tokenizer_that_can_end_nothing_is_refused() -> None:
    backend = Tokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))
    with pytest.raises(DataError, match="no eos_token"):
        TokenRules.of(PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>"))


def test_a_prompt_without_a_token_is_refused_unless_there_is_a_bos(
    stories: TokenRules, gpt2: TokenRules
) -> None:
    assert stories.prompt_ids("") == (1,)
    with pytest.raises(DataError, match="no tokens"):
        gpt2.prompt_ids("")


@pytest.mark.parametrize("prompt", PROMPTS)
def test_a_prompt_has_one_bos_or_none_by_contract(prompt: str, rules: TokenRules) -> None:
    ids = rules.prompt_ids(prompt)
    if rules.bos is None:
        assert rules.eos not in ids
    else:
        assert ids[0] == rules.bos
        assert ids.count(rules.bos) == 1


@pytest.mark.parametrize("answer", ANSWERS)
def test_an_answer_has_one_end_and_no_beginning(answer: str, rules: TokenRules) -> None:
    ids = rules.response_ids(answer)
    assert ids[-1] == rules.eos
    assert ids.count(rules.eos) == 1
    assert rules.bos not in ids
    whole = rules.text_ids(answer)
    assert whole.count(rules.eos) == 1
    assert whole[-1] == rules.eos
    if rules.bos is not None:
        assert whole[0] == rules.bos
        assert whole.count(rules.bos) == 1


@pytest.mark.parametrize("name", ["stories", "gpt2"])
def test_prompt_and_answer_are_together_the_whole_text(
    name: str, request: pytest.FixtureRequest
) -> None:
    rules: TokenRules = request.getfixturevalue(name)
    for prompt in PROMPTS:
        for answer in ANSWERS:
            before, after = rules.prompt_ids(prompt), rules.response_ids(answer)
            # What SentencePiece writes a space as cannot be told from one.
            said = answer.replace("\u2581", " ") if name == "stories" else answer
            assert rules.text(before + after) == prompt + said
            assert rules.response_text(before, after) == said


@given(prompt=st.text(min_size=1), answer=st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_text_is_lost_at_the_boundary_of_bytes(
    prompt: str, answer: str, gpt2: TokenRules
) -> None:
    before, after = gpt2.prompt_ids(prompt), gpt2.response_ids(answer)
    assert gpt2.text(before + after) == prompt + answer
    assert after.count(gpt2.eos) == 1


@given(prompt=st.text(min_size=1), answer=st.text())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_no_text_is_lost_at_the_boundary_of_pieces(
    prompt: str, answer: str, stories: TokenRules
) -> None:
    before, after = stories.prompt_ids(prompt), stories.response_ids(answer)
    assert stories.text(before + after) == (prompt + answer).replace("\u2581", " ")
    assert (before.count(1), after.count(1), after.count(2)) == (1, 0, 1)


def test_a_space_before_every_text_stays_out_of_an_answer(stories: TokenRules) -> None:
    space, line = stories.tokenizer.convert_tokens_to_ids(["\u2581", "<0x0A>"])
    # The trap: on its own, an answer begins with a space that nobody wrote.
    assert stories.tokenizer("\nTom")["input_ids"][1:3] == [space, line]
    assert stories.response_ids("\nTom")[0] == line
    assert stories.response_ids(" Tom") != stories.response_ids("Tom")
    assert stories.text(stories.prompt_ids("Hi") + stories.response_ids("Tom")) == "HiTom"
    assert stories.text(stories.prompt_ids("Hi") + stories.response_ids(" Tom")) == "Hi Tom"
    # Joined at a word's end, the ids are those of the whole text.
    whole = stories.text_ids("Once upon a time there was a dog.")
    parts = stories.prompt_ids("Once upon a time"), stories.response_ids(" there was a dog.")
    assert parts[0] + parts[1] == whole


def test_an_answer_does_not_depend_on_how_its_prompt_is_spelled(normalising: TokenRules) -> None:
    # This tokenizer rewrites the prompt, which is no reason to take the answer's space away.
    pair = Pair("p", "train", "cafe\u0301", " is fine", " is bad")
    (found,), _ = tokenise([pair], normalising, WIDE)
    assert normalising.text(found.prompt + found.chosen) == "caf\u00e9 is fine"


# ---- Limits and counts

TEXTS = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)


@st.composite
def labelled(draw: Any) -> list[Pair]:
    count = draw(st.integers(0, 8))
    return [Pair(str(row), "train", draw(TEXTS), draw(TEXTS), draw(TEXTS)) for row in range(count)]


DROPPED = ("overlong", "empty", "identical", "duplicate")


@given(
    pairs=labelled(), prompt=st.integers(1, 8), answer=st.integers(1, 8),
    overlong=st.sampled_from(["cut", "drop"]),
)  # fmt: skip
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_every_pair_is_kept_within_the_limits_or_counted(
    pairs: list[Pair], prompt: int, answer: int, overlong: Overlong, words: TokenRules
) -> None:
    kept, counts = tokenise(pairs, words, Limits(prompt, answer, overlong))
    assert counts["kept"] == len(kept)
    assert counts["kept"] + sum(counts[fate] for fate in DROPPED) == len(pairs)
    assert [p.pair_id for p in kept] == sorted(p.pair_id for p in kept)
    seen = set()
    for pair in kept:
        source = pairs[int(pair.pair_id)]
        assert 1 <= len(pair.prompt) <= prompt
        assert pair.prompt[0] == 1
        assert pair.prompt.count(1) == 1
        full = words.prompt_ids(source.prompt)
        assert pair.prompt[1:] == full[len(full) - len(pair.prompt) + 1 :]
        for ids, text in ((pair.chosen, source.chosen), (pair.rejected, source.rejected)):
            finished = words.response_ids(text)
            assert set(ids) - {words.eos}  # something is said
            assert len(ids) <= answer
            assert ids == finished[: len(ids)]
            assert (ids[-1] == words.eos) == (len(finished) <= answer)
            assert overlong == "cut" or ids == finished
        assert pair.chosen != pair.rejected
        seen.add((pair.prompt, pair.chosen, pair.rejected))
    assert len(seen) == len(kept)
    cut = [p for p in kept if len(words.prompt_ids(pairs[int(p.pair_id)].prompt)) > prompt]
    assert counts["prompt cut"] == len(cut)
    assert overlong == "cut" or counts["response cut"] == 0
    assert overlong == "drop" or counts["overlong"] == 0


def one_of(kind: str) -> Pair:
    texts = {
        "kept": ("the film", "is good", "is bad"),
        "prompt cut": ("the film and the cast and the plot", "is good", "is bad"),
        "response cut": ("the cast", "is good and the plot is fine", "is bad"),
        "empty": ("the film", "is good", ""),
        "identical": ("the film", "is good", "is good"),
        "duplicate": ("the film", "is good", "is bad"),
    }
    return Pair(kind, "train", *texts[kind])


def test_what_happened_to_each_pair_is_counted(words: TokenRules) -> None:
    kinds = ("kept", "prompt cut", "response cut", "empty", "identical", "duplicate")
    pairs = [one_of(kind) for kind in kinds]
    kept, counts = tokenise(pairs, words, Limits(5, 4, "cut"))
    assert [pair.pair_id for pair in kept] == ["kept", "prompt cut", "response cut"]
    assert counts == {**dict.fromkeys(kinds, 1), "kept": 3, "overlong": 0}
    assert words.text(kept[1].prompt) == "cast and the plot"
    assert words.text(kept[2].chosen) == "is good and the"
    assert kept[2].chosen[-1] != words.eos
    assert kept[2].rejected[-1] == words.eos
    kept, counts = tokenise(pairs, words, Limits(5, 4, "drop"))
    assert [pair.pair_id for pair in kept] == ["kept", "prompt cut"]
    assert counts["overlong"] == 1
    assert counts["response cut"] == 0


def test_answers_that_are_the_same_once_they_are_cut_are_dropped(words: TokenRules) -> None:
    pair = Pair("p", "train", "the", "is good and fine", "is good and bad")
    assert tokenise([pair], words, Limits(9, 3, "cut"))[1]["identical"] == 1
    assert tokenise([pair], words, Limits(9, 4, "cut"))[1]["kept"] == 1


def test_a_label_that_was_turned_round_is_another_pair(words: TokenRules) -> None:
    pair = Pair("p", "train", "the", "is good", "is bad")
    turned = replace(pair, pair_id="q", chosen=pair.rejected, rejected=pair.chosen)
    kept, counts = tokenise([pair, turned, pair], words, WIDE)
    assert counts["kept"] == 2
    assert counts["duplicate"] == 1
    assert (kept[0].chosen, kept[0].rejected) == (kept[1].rejected, kept[1].chosen)
    assert kept[0].prompt == kept[1].prompt


def test_the_sampled_ids_are_the_ids_that_are_trained_on(words: TokenRules) -> None:
    # Ids that no tokenizer would give for these texts, one answer without an end.
    pair = Pair(
        "p", "train", "the film", "is good", "is bad",
        prompt_ids=(1, 9, 9), chosen_ids=(5, 5, 2), rejected_ids=(6, 7, 8),
    )  # fmt: skip
    (kept,), counts = tokenise([pair], words, WIDE)
    assert kept == TokenPair("p", (1, 9, 9), (5, 5, 2), (6, 7, 8))
    assert counts["response cut"] == 0


def test_an_answer_of_nothing_but_endings_is_empty(stories: TokenRules) -> None:
    # This model ends its stories with 1, which is not its tokenizer's eos.
    for nothing in ((2,), (1,), (0, 2)):
        pair = Pair("p", "train", "Tom", "", "x", chosen_ids=nothing, rejected_ids=(5, 6, 2))
        assert tokenise([pair], stories, WIDE)[1]["empty"] == 1


# ---- On disk


def test_the_stage_counts_what_it_drops_and_uses_no_more_than_it_may(tmp_path: Path) -> None:
    world = make_world(tmp_path / "world", pairs=20, held_out=8)
    pairs = read_jsonl(world.inputs["pairs"] / "pairs.jsonl", Pair)
    more = [*pairs, replace(pairs[0], pair_id="again"), replace(pairs[-1], pair_id="again too")]
    write_jsonl(world.inputs["pairs"] / "pairs.jsonl", more)
    work = world.work("fewer", {"limits": LIMITS, "most": {"train": 12, "validation": 99}})
    facts = tokenise_pairs(work)
    assert (facts["train"]["kept"], facts["train"]["used"], facts["train"]["duplicate"]) == (
        20,
        12,
        1,
    )
    assert (facts["validation"]["kept"], facts["validation"]["used"]) == (8, 8)
    train = load_pairs(work.out, "train")
    assert [pair.pair_id for pair in train] == [f"train-{row}" for row in range(12)]
    assert not {pair.pair_id for pair in train} & {
        p.pair_id for p in load_pairs(work.out, "validation")
    }
    rules = TokenRules.of(AutoTokenizer.from_pretrained(world.inputs["policy"]))
    assert rules.text(train[0].prompt + train[0].chosen) == pairs[0].prompt + pairs[0].chosen


def test_a_split_without_a_pair_is_refused(tmp_path: Path) -> None:
    world = make_world(tmp_path / "world", pairs=4, held_out=4)
    pairs = read_jsonl(world.inputs["pairs"] / "pairs.jsonl", Pair)
    same = [replace(p, chosen=p.rejected) if p.split == "validation" else p for p in pairs]
    write_jsonl(world.inputs["pairs"] / "pairs.jsonl", same)
    work = world.work("none", {"limits": LIMITS, "most": {"train": 9, "validation": 9}})
    with pytest.raises(DataError, match=r'no validation pair is left of 4: .*"identical": 4'):
        tokenise_pairs(work)


def test_token_pairs_come_back_as_they_went(tmp_path: Path) -> None:
    pairs = [
        TokenPair("a", (1, 2, 3), (70000,), (5, 6)),
        TokenPair('"\u00e9\n', (4,), (5, 6, 7), (8,)),
    ]
    save_pairs(tmp_path / "train.safetensors", pairs)
    save_pairs(tmp_path / "validation.safetensors", [])
    assert load_pairs(tmp_path, "train") == pairs
    assert load_pairs(tmp_path, "validation") == []
    assert all(type(token) is int for token in load_pairs(tmp_path, "train")[0].prompt)


ROWS = st.lists(st.lists(st.integers(-(2**40), 2**40), max_size=5), max_size=6)


@given(one=ROWS, other=ROWS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_ragged_rows_come_back_as_they_went(
    one: Sequence[Sequence[int]], other: Sequence[Sequence[int]], tmp_path: Path
) -> None:
    save_ragged(tmp_path / "rows.safetensors", one=one, other=other)
    found = load_ragged(tmp_path / "rows.safetensors")
    assert set(found) == {"one", "other"}
    for name, rows in (("one", one), ("other", other)):
        assert [row.tolist() for row in found[name]] == [list(row) for row in rows]
        if any(rows):
            assert {row.dtype for row in found[name]} == {np.dtype(np.int64)}


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int32])
def test_ragged_rows_keep_their_type(kind: Any, tmp_path: Path) -> None:
    rows = [np.array([1, 2], dtype=kind), np.array([], dtype=kind), np.array([3], dtype=kind)]
    save_ragged(tmp_path / "rows.safetensors", rows=rows)
    found = load_ragged(tmp_path / "rows.safetensors")["rows"]
    assert [row.tolist() for row in found] == [[1, 2], [], [3]]
    assert {row.dtype for row in found} == {np.dtype(kind)}


# ---- Texts and prompts


def test_a_line_of_a_text_is_not_a_line_of_the_file(tmp_path: Path, words: TokenRules) -> None:
    # Old reviews are full of \x85; JSON leaves it, and the separators of lines, as they are.
    texts = [f"the film{mark}is good" for mark in ("\x85", "\u2028", "\u2029", "\x0b", "\r\n", " ")]
    lines = "".join(json.dumps(text, ensure_ascii=False) + "\n" for text in texts)
    (tmp_path / "texts.jsonl").write_text(lines, encoding="utf-8")
    sequences, cut = _sequences(tmp_path, words, texts=99, max_tokens=99)
    assert len(sequences) == 6
    assert cut == 0
    assert words.text(sequences[-1][0] + sequences[-1][1]) == "the film is good"
    assert len(_sequences(tmp_path, words, texts=2, max_tokens=99)[0]) == 2


def test_a_text_of_the_warm_start_begins_and_ends_by_contract(
    tmp_path: Path, words: TokenRules
) -> None:
    texts = ["the film is good", "bad", "", "the film and the plot is dull and the cast is fine ."]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    sequences, cut = _sequences(tmp_path, words, texts=99, max_tokens=8)
    assert cut == 1
    assert [first for first, _ in sequences] == [(1,)] * 3
    assert [rest[-1] == words.eos for _, rest in sequences] == [True, True, False]
    assert [len(rest) for _, rest in sequences] == [5, 2, 7]


def prompts(*texts: str) -> list[Prompt]:
    splits = ("train", "validation", "test")
    return [Prompt(f"p{row}", splits[row], text) for row, text in enumerate(texts)]  # type: ignore[arg-type]


def test_a_prompt_in_two_splits_is_refused() -> None:
    assert _checked(Corpus([], prompts("a", "b", "c"))) == {"train": 1, "test": 1, "validation": 1}
    with pytest.raises(DataError, match="1 prompts are in train and in test: 'a'"):
        _checked(Corpus([], prompts("a", "b", "a")))
    with pytest.raises(DataError, match="in validation and in test"):
        _checked(Corpus([], prompts("a", "b", "b")))
    with pytest.raises(DataError, match="no prompts for test"):
        _checked(Corpus([], prompts("a", "b", "c")[:2]))
    twice = [replace(prompt, prompt_id="same") for prompt in prompts("a", "b", "c")]
    with pytest.raises(DataError, match="occurs twice"):
        _checked(Corpus([], twice))


def test_what_was_generated_is_what_is_tokenised(rules: TokenRules) -> None:
    """A completion's ids and a pair's ids are one rule: its text alone gives them back."""
    prompt, answer = "the film", " is good and the plot is fine ."
    before, after = rules.prompt_ids(prompt), rules.response_ids(answer)
    made = Completion("p", 0, prompt, rules.response_text(before, after), before, after, True)
    pair = Pair("p", "train", made.prompt, made.text, " is bad", made.prompt_ids, made.ids)
    plain = replace(pair, prompt_ids=None, chosen_ids=None)
    assert tokenise([pair], rules, WIDE) == tokenise([plain], rules, WIDE)


def test_the_work_of_the_stage_touches_no_input(tmp_path: Path) -> None:
    world = make_world(tmp_path / "world", pairs=4, held_out=4)
    pairs = world.inputs["pairs"] / "pairs.jsonl"
    before = pairs.read_bytes()
    work: Work = world.work("again", {"limits": LIMITS, "most": {"train": 9, "validation": 9}})
    assert tokenise_pairs(work) == tokenise_pairs(work)
    assert pairs.read_bytes() == before
    assert sorted(path.name for path in work.out.iterdir()) == [
        "train.safetensors", "validation.safetensors",
    ]  # fmt: skip


def stored(folder: Path, pairs: Sequence[TokenPair]) -> StoredPairs:
    save_pairs(folder / "train.safetensors", pairs)
    return load_pairs(folder, "train")


def test_stored_pairs_are_a_sequence_as_a_list_is_one(tmp_path: Path) -> None:
    pairs = some_pairs(600, answer=3)
    found = stored(tmp_path, pairs)
    assert found == pairs == list(found)
    assert found != pairs[:-1]
    assert found != [*pairs[:-1], replace(pairs[-1], pair_id="another")]
    assert (len(found), found[0], found[-1], found[599]) == (600, pairs[0], pairs[-1], pairs[-1])
    for part in (slice(5), slice(-3, None), slice(None, None, -1), slice(2, 590, 7), slice(9, 9)):
        assert list(found[part]) == pairs[part]
        assert [found[part][i] for i in range(len(pairs[part]))] == pairs[part]
    assert list(found[10:500][3:400]) == pairs[10:500][3:400]
    for row in (600, -601):
        with pytest.raises(IndexError):
            found[row]


@pytest.mark.parametrize("part", [slice(None), slice(None, None, -1), slice(3, 3)])
def test_counts_and_prompts_are_those_of_the_pairs(part: slice, tmp_path: Path) -> None:
    pairs = some_pairs(40)
    found, plain = stored(tmp_path, pairs)[part], pairs[part]
    donors = np.random.default_rng(0).permutation(len(plain))
    for one, other in ((found, plain), (CrossedPairs(found, donors), CrossedPairs(plain, donors))):
        wanted = [[len(p.prompt), len(p.chosen), len(p.rejected)] for p in other]
        assert token_counts(one).T.tolist() == wanted
        assert token_counts(list(other)).T.tolist() == wanted
    keys, prompts_ = list(token_store.prompts(found)), [pair.prompt for pair in plain]
    for i, key in enumerate(keys):
        assert [key == k for k in keys] == [prompts_[i] == p for p in prompts_]


def test_crossed_pairs_have_their_own_prompts_and_the_answers_of_others(tmp_path: Path) -> None:
    pairs = some_pairs(4)
    found = CrossedPairs(stored(tmp_path, pairs), np.array([3, 0, 0, -1]))
    assert [pair.pair_id for pair in found] == [pair.pair_id for pair in pairs]
    assert [pair.prompt for pair in found] == [pair.prompt for pair in pairs]
    assert [pair.chosen for pair in found] == [pairs[row].chosen for row in (3, 0, 0, 3)]
    assert [pair.rejected for pair in found] == [pairs[row].rejected for row in (3, 0, 0, 3)]
    assert found[1:3] == [found[1], found[2]]
    assert found[-1] == pairs[3]


def test_a_store_takes_no_memory_for_its_ids(tmp_path: Path) -> None:
    count, length = 4000, 500
    columns = create_ragged(
        tmp_path / "train.safetensors",
        **dict.fromkeys(("prompt", "chosen", "rejected"), ([length] * count, np.int32)),
        pair_id=([1] * count, np.uint8),
    )
    columns["prompt"].put(0, np.full(length, 7))
    tracemalloc.start()
    try:
        found = load_pairs(tmp_path, "train")
        assert sum(len(pair.prompt) for pair in found) == count * length
        assert int(token_counts(found).sum()) == 3 * count * length
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    size = (tmp_path / "train.safetensors").stat().st_size
    assert most < size / 8, "offsets and a block of rows"


def test_a_file_of_rows_is_a_safetensors_file_and_may_be_filled_in_any_order(
    tmp_path: Path,
) -> None:
    file = tmp_path / "rows.safetensors"
    made = create_ragged(file, a=([1, 0, 3], np.uint8), b=([2, 1], np.float32), none=([], np.int32))
    made["b"].put(1, [0.5])
    made["a"].put(2, np.array([7, 8, 9], dtype=np.uint8))
    made["a"].put(1, [])
    made["b"].put(-2, np.array([1.5, -2.0]))
    found = load_ragged(file)
    assert [row.tolist() for row in found["a"]] == [[0], [], [7, 8, 9]]
    assert [row.tolist() for row in found["b"]] == [[1.5, -2.0], [0.5]]
    assert (len(found["none"]), list(found["none"])) == (0, [])
    tensors = load_file(file)
    assert tensors["a.values"].tolist() == [0, 7, 8, 9]
    assert {name: tensor.dtype for name, tensor in tensors.items() if "values" in name} == {
        "a.values": np.uint8, "b.values": np.float32, "none.values": np.int32,
    }  # fmt: skip


@pytest.mark.parametrize("values", [[1, 2], [1, 2, 3, 4], []])
def test_a_row_of_another_length_is_not_written(values: list[int], tmp_path: Path) -> None:
    made = create_ragged(tmp_path / "rows.safetensors", a=([3, 3], np.int32))
    with pytest.raises(AssertionError, match="row 0"):
        made["a"].put(0, values)


def test_numbers_with_fractions_are_no_ids(tmp_path: Path) -> None:
    made = create_ragged(tmp_path / "rows.safetensors", a=([1], np.int32))
    with pytest.raises(TypeError, match="cast"):
        made["a"].put(0, [0.5])


def test_a_file_that_was_cut_off_is_named(tmp_path: Path) -> None:
    pairs = stored(tmp_path, some_pairs(30))
    file = tmp_path / "train.safetensors"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"train\.safetensors ends at byte \d+.*cut off"):
        list(pairs)


@pytest.mark.parametrize("first", [0, 255, 256, 300])
def test_rows_read_together_are_the_rows_read_alone(first: int, tmp_path: Path) -> None:
    rows = [list(range(row % 4)) for row in range(700)]
    save_ragged(tmp_path / "rows.safetensors", rows=rows)
    column = load_ragged(tmp_path / "rows.safetensors")["rows"]
    for some in (range(first, 700), range(first, 512), range(699, first, -3), range(first, first)):
        assert [row.tolist() for row in column.some(some)] == [rows[row] for row in some]
    assert [row.tolist() for row in column[first:-5:9]] == rows[first:-5:9]
