"""The world of reviews: what parses, what it says, and that what it says is no count of words."""

from __future__ import annotations

import importlib
import re
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

reviews = importlib.import_module("harness.tasks.worlds.reviews")

TONES = (-1.0, -0.5, 0.0, 0.5, 1.0)
OPTIONAL = {
    *("slightly", "rather", "somewhat", "truly", "really", "very", "utterly"),
    *("not", "never", "hardly"),
}

# The grammar once more, as one regular expression: the oracle of the recogniser.
ASPECT = (
    "(acting|camerawork|cast|comedy|dialogue|direction|editing|ending|film|hero|humour|movie|music"
    "|opening|plot|script|story|villain)"
)
THING = f"(it|the {ASPECT})"
ADJECTIVE = (
    "(brilliant|excellent|gripping|superb|wonderful|charming|clever|fresh|funny|good|moving|decent"
    "|nice|pleasant|solid|french|long|modern|old|quiet|short|bland|clumsy|predictable|weak|bad"
    "|boring|dull|stale|stupid|tedious|awful|dreadful|horrible|painful|terrible)"
)
VERB = "(adore|love|like|admire|enjoy|notice|remember|dislike|despise|resent|hate|loathe)"
PAST = (
    "(adored|loved|liked|admired|enjoyed|noticed|remembered|disliked|despised|resented|hated"
    "|loathed)"
)
JUDGEMENT = (
    "((slightly |a bit |rather |very |utterly |hardly |(not |never )(very |utterly )?)?"
    f"{ADJECTIVE})"
)
FEELING = f"((somewhat |truly |really )?{PAST}|did not (truly |really )?{VERB})"
CLAUSE = (
    f"({THING} (was|felt|seemed) {JUDGEMENT}|(i|we) found {THING} {JUDGEMENT}|(i|we) {FEELING} "
    f"{THING}|the (film|movie) runs for (two|three|four) hours|it is set in (london|paris|rome"
    "|tokyo)|(i|we) saw it on (friday|saturday|sunday|monday))"
)
SENTENCE = rf"({CLAUSE}( , but {CLAUSE})? \.)"
REVIEW = re.compile(f"{SENTENCE}( {SENTENCE}){{1,3}}")


@cache
def samples(tone: float, seed: int = 0, count: int = 1000) -> tuple[str, ...]:
    rng = np.random.default_rng(seed)
    return tuple(reviews.sample(rng, tone) for _ in range(count))


def rewards(tone: float, seed: int = 0, count: int = 1000) -> np.ndarray:
    return np.array([reviews.reward(text) for text in samples(tone, seed, count)])


def corrupted(text: str, rng: np.random.Generator) -> str:
    """The text with one word put in, taken out, replaced, doubled, or swapped with the next."""
    words = text.split(" ")
    at = int(rng.integers(len(words) - 1))
    other = reviews.VOCABULARY[rng.integers(len(reviews.VOCABULARY))]
    middle = (
        [other, words[at]], [], [other], [words[at]] * 2, [words[at + 1], words[at]],
    )[rng.integers(5)]  # fmt: skip
    behind = at + 2 if middle[1:] == [words[at]] and middle[0] == words[at + 1] else at + 1
    return " ".join(words[:at] + middle + words[behind:])


@pytest.mark.parametrize("tone", TONES)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_sample_parses_and_is_of_the_promised_size(tone: float, seed: int) -> None:
    for text in samples(tone, seed, 300):
        assert reviews.parses(text), text
        assert 12 <= len(text.split(" ")) <= 32
        assert 2 <= text.count(".") <= 4
        assert REVIEW.fullmatch(text), text


def test_thousands_of_samples_are_nearly_all_distinct() -> None:
    texts = samples(0.0, count=4000)
    assert len(set(texts)) >= 0.995 * len(texts)
    assert 18 < np.mean([len(text.split(" ")) for text in texts]) < 22


def test_no_sample_says_anything_twice() -> None:
    for text in (*samples(0.0, count=4000), *samples(-1.0, count=2000), *samples(1.0, count=2000)):
        said = text.split(" . ")
        assert len({sentence.removesuffix(" .") for sentence in said}) == len(said), text


def test_equal_seeds_give_equal_texts_and_other_seeds_others() -> None:
    rng = np.random.default_rng(0)
    assert tuple(reviews.sample(rng, 0.5) for _ in range(300)) == samples(0.5)[:300]
    assert not set(samples(0.5, seed=0)) & set(samples(0.5, seed=1))


def test_the_vocabulary_is_what_samples_are_made_of() -> None:
    words = set(" ".join(text for tone in TONES for text in samples(tone)).split(" "))
    assert tuple(sorted(words)) == reviews.VOCABULARY
    assert 110 <= len(reviews.VOCABULARY) <= 220


def test_the_recogniser_agrees_with_the_grammar_on_corrupted_texts() -> None:
    rng = np.random.default_rng(0)
    texts = [corrupted(text, rng) for tone in TONES for text in samples(tone)]
    found = np.array([reviews.parses(text) for text in texts])
    assert [
        text for text, p in zip(texts, found, strict=True) if p != bool(REVIEW.fullmatch(text))
    ] == []
    assert 0.02 < found.mean() < 0.3


def test_a_doubled_word_never_parses() -> None:
    for text in samples(0.0)[:200]:
        words = text.split(" ")
        for at, word in enumerate(words):
            assert not reviews.parses(" ".join([*words[:at], word, *words[at:]]))


def test_a_missing_word_never_parses_unless_one_may_leave_it_out() -> None:
    for text in samples(0.0)[:200]:
        words = text.split(" ")
        for at, word in enumerate(words):
            if word not in OPTIONAL or words[at - 1] == "did":
                assert not reviews.parses(" ".join(words[:at] + words[at + 1 :])), (text, word)


def test_two_neighbours_swapped_never_parse() -> None:
    for text in samples(0.0)[:200]:
        words = text.split(" ")
        for at in range(len(words) - 1):
            swapped = [*words[:at], words[at + 1], words[at], *words[at + 2 :]]
            assert not reviews.parses(" ".join(swapped)), swapped


def test_a_text_cut_within_a_sentence_never_parses() -> None:
    for text in samples(0.0)[:200]:
        words = text.split(" ")
        for end in range(len(words)):
            whole = words[end - 1] == "." and words[:end].count(".") >= 2
            assert reviews.parses(" ".join(words[:end])) == whole


@pytest.mark.parametrize(
    "text",
    [
        "",
        "i loved it .",
        "i loved it . i hated it . i loved it . i hated it . i loved it .",
        "i loved it . the plot was very not good .",
        "i loved it . the plot was not a bit good .",
        "i loved it . i not enjoyed it .",
        "i loved it . i did not enjoyed it .",
        "i loved it . i very enjoyed it .",
        "i loved it . i loved it , but i hated it , but i loved it .",
        "i loved it . but i loved it .",
        "i loved it . i hated it but i loved it .",
        "i loved it . , but i loved it .",
        "i loved it . i loved it , but .",
        "i loved it . the script runs for two hours .",
        "i loved it . the plot good .",
        "I loved it . It was good .",
        "i loved it. it was good.",
        "i loved it .  it was good .",
        "i loved it .\nit was good .",
        "i loved it . it was  good .",
        "i loved it . it was not  good .",
    ],
)
def test_what_is_not_a_review_does_not_parse(text: str) -> None:
    assert not reviews.parses(text)


# v: good, funny, clever, boring, dull ±1.5; superb, awful ±2; weak, like ±1; french, long 0.
# d: slightly 1/4, a bit, somewhat 1/2, rather 3/4, very, truly 5/4, utterly, really 3/2.
SENTENCES = {
    "the plot was good .": 1.5,
    "the plot was very good .": 1.25 * 1.5,
    "it felt utterly superb .": 3.0,
    "it felt utterly awful .": -3.0,
    "it seemed slightly weak .": -0.25,
    "the plot was a bit dull .": -0.75,
    "we found the script rather clever .": 0.75 * 1.5,
    "the plot was not good .": -(4 - 1.5) / 4,
    "the plot was not very good .": -(4 - 1.875) / 4,
    "the plot was not superb .": -(4 - 2) / 4,
    "the plot was not utterly superb .": -(4 - 3) / 4,
    "it was never boring .": 1.25 * (4 - 1.5) / 4,
    "it was never utterly boring .": 1.25 * (4 - 2.25) / 4,
    "the script was hardly funny .": -0.5 * (4 - 1.5) / 4,
    "the film was utterly french .": 0.0,
    "the film was not long .": 0.0,
    "i loved the ending .": 2.0,
    "we really loved the ending .": 3.0,
    "i somewhat disliked it .": -0.5,
    "i did not enjoy it .": -(4 - 1.5) / 4,
    "i did not really hate it .": (4 - 3) / 4,
    "we noticed the music .": 0.0,
    "the film runs for two hours .": 0.0,
    "it is set in paris .": 0.0,
    "i saw it on monday .": 0.0,
    "the acting was not very good , but the plot was superb .": (-2.125 / 4 + 3 * 2) / 4,
    "the plot was superb , but the acting was not very good .": (2 + 3 * -2.125 / 4) / 4,
}


@pytest.mark.parametrize(("sentence", "worth"), SENTENCES.items())
def test_a_sentence_is_worth_what_the_rule_says(sentence: str, worth: float) -> None:
    assert reviews.polarity(sentence) == worth
    assert reviews.reward(sentence) == worth


@pytest.mark.parametrize(
    ("text", "worth"),
    [
        ("", 0.0),
        ("   ", 0.0),
        (".", 0.0),
        ("superb superb superb .", 0.0),
        ("An utterly superb film!", 0.0),
        ("the plot was very not good .", 0.0),
        ("i loved it", 0.0),
        ("i loved it . the plot was good .", (2 + 1.5) / 2),
        ("i loved it . the plot was not good .", (2 - 0.625) / 2),
        ("i loved it . the film runs for two hours .", 2 / 2),
        ("i loved it . i hated it . it was good .", 1.5 / 3),
        ("i loved it . i loved it .", 2 / 2),
        ("i loved it . it was weak . i loved it . i loved it .", (2 - 1) / 4),
        ("i hated it . i hated it .", -2 / 2),
        ("i loved it . the plot was utterly", 2 / 2),
        ("i loved it . the plot was utterly superb", 2 / 2),
        ("i loved it . the the plot was superb . it was good .", (2 + 1.5) / 3),
        ("i loved it . . .", 2 / 3),
        ("i loved it . ", 2.0),
        (" i loved it .", 2.0),
    ],
)
def test_a_text_is_worth_the_mean_over_all_that_it_has_room_for(text: str, worth: float) -> None:
    assert reviews.reward(text) == pytest.approx(worth, abs=1e-12)


def test_denial_flips_and_dampens() -> None:
    for text in (
        "it was {}good .",
        "it was {}superb .",
        "it was {}dull .",
        "it felt {}very weak .",
    ):
        said = reviews.polarity(text.format(""))
        for no in ("not ", "never ") if "very" in text else ("not ", "never ", "hardly "):
            denied = reviews.polarity(text.format(no))
            assert denied * said < 0
            assert abs(denied) < abs(said)


def test_saying_it_again_never_pays() -> None:
    for text in samples(1.0)[:300]:
        once = reviews.reward(text)
        for sentence in re.findall(r"[^.]+\.", text):
            again = reviews.reward(f"{text} {sentence.strip()}")
            assert abs(again) < abs(once) or once == 0


def test_the_order_of_words_matters() -> None:
    one = "the plot was not superb . the music was dull ."
    other = "the plot was superb . the music was not dull ."
    assert sorted(one.split(" ")) == sorted(other.split(" "))
    assert reviews.parses(one)
    assert reviews.parses(other)
    assert reviews.reward(one) == -1.0
    assert reviews.reward(other) == (2 + 0.625) / 2


@pytest.mark.parametrize("spread", [0.0, 0.9])
def test_the_reward_is_no_count_of_words(spread: float) -> None:
    rng = np.random.default_rng(3)
    texts = [reviews.sample(rng, rng.uniform(-spread, spread)) for _ in range(4000)]
    index = {word: i for i, word in enumerate(reviews.VOCABULARY)}
    counts = np.zeros((len(texts), len(index) + 1))
    counts[:, -1] = 1
    for row, text in zip(counts, texts, strict=True):
        for word in text.split(" "):
            row[index[word]] += 1 / text.count(".")
    truth = np.array([reviews.reward(text) for text in texts])
    left = truth - counts @ np.linalg.lstsq(counts, truth, rcond=None)[0]
    explained = 1 - left.var() / truth.var()
    assert 0.4 < explained < 0.85


def test_tone_tilts_the_reward_and_its_mirror_image_alike() -> None:
    means = [rewards(tone, count=2000).mean() for tone in TONES]
    assert means == sorted(means)
    assert means[0] < -1.4
    assert means[-1] > 1.4
    assert means == pytest.approx([-mean for mean in reversed(means)], abs=0.12)
    assert 0.8 < rewards(0.0, count=2000).std() < 1.2


@pytest.mark.parametrize("tone", [-1.01, 1.01, float("nan")])
def test_a_tone_out_of_range_is_refused(tone: float) -> None:
    with pytest.raises(ValueError, match="tone"):
        reviews.sample(np.random.default_rng(0), tone)


def test_beginning_and_rest_make_the_text() -> None:
    for text in samples(0.0)[:200]:
        length = len(text.split(" "))
        for words in range(1, length):
            prompt, rest = reviews.beginning(text, words)
            assert f"{prompt} {rest}" == text
            assert len(prompt.split(" ")) == words
        for words in (-1, 0, length):
            with pytest.raises(ValueError, match="cannot be split"):
                reviews.beginning(text, words)


@settings(deadline=None, database=None, derandomize=True)
@given(
    st.one_of(
        st.text(),
        st.lists(st.sampled_from((*reviews.VOCABULARY, ".", ".", ""))).map(" ".join),
        st.lists(st.sampled_from(tuple(SENTENCES))).map(" ".join),
    )
)
def test_every_string_has_a_reward_in_range(text: str) -> None:
    assert -3 <= reviews.reward(text) <= 3
    assert reviews.parses(text) == bool(REVIEW.fullmatch(text.strip()))
