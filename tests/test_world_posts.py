"""The world of posts: what parses, what a summary states, and that nothing else pays."""

from __future__ import annotations

import importlib
import re
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.contracts.judge import Versus
from harness.contracts.task import Sizes

posts = importlib.import_module("harness.tasks.worlds.posts")
grammar = importlib.import_module("harness.tasks.worlds.post_grammar")

# The grammar once more, as regular expressions: the oracle of the recogniser.
THING = "(bike|boat|camera|car|guitar|laptop|phone|tent)"
CULPRIT = "(boss|brother|cousin|friend|landlord|neighbour|roommate|sister)"
PLACE = "(berlin|boston|dublin|london|madrid|oslo|paris|rome)"
DAY = "(monday|tuesday|wednesday|thursday|friday|saturday|sunday)"
COST = "(20|40|50|80|90|200|300|500)"
MOOD = "(afraid|angry|ashamed|confused|lonely|sad|sick|tired)"
PLAN = "(apologise|argue|forget|leave|move|shout|sue|wait)"
SENTENCE = (
    f"(my {THING} is broken|somebody broke my {THING}|my {CULPRIT} did it|it was my {CULPRIT}"
    f"|it happened in {PLACE}|we live in {PLACE}|that was on {DAY}|it was last {DAY}"
    f"|i paid {COST} dollars|it was worth {COST} dollars|i am so {MOOD}|this makes me {MOOD}"
    f"|i think i should {PLAN}|maybe i will {PLAN}|thanks for reading|it is a long story"
    "|sorry for my english|nobody believes me|i could not sleep|i never post here|please help me)"
)
PHRASES = (
    f"broken {THING}", f"by my {CULPRIT}", f"in {PLACE}", f"on {DAY}", f"cost {COST} dollars",
    f"feel {MOOD}", f"want to {PLAN}",
)  # fmt: skip
# In this order, each at most once, commas between: a phrase follows the beginning or a comma.
SUMMARY = "".join(f"((^| , ){phrase})?" for phrase in PHRASES)
POST = re.compile(rf"({SENTENCE} \. )+tl;dr : ")


def is_text(text: str) -> bool:
    post = POST.match(text)
    rest = text[post.end() :] if post else ""
    body = rest.removesuffix(" .")
    return rest != body != "" and re.fullmatch(SUMMARY, body) is not None


@cache
def texts(seed: int = 0, count: int = 1000) -> tuple[tuple[str, str], ...]:
    rng = np.random.default_rng(seed)
    made = [posts.prompt(rng) for _ in range(count)]
    return tuple((prompt, posts.HASTY.write(prompt, rng)) for prompt in made)


def corrupted(text: str, rng: np.random.Generator) -> str:
    """The text with one word put in, taken out, replaced, doubled, or swapped with the next."""
    words = text.split(" ")
    at = int(rng.integers(len(words) - 1))
    slot = [
        slot.values for slot in grammar.SLOTS if words[at] in slot.values and rng.random() < 0.5
    ]
    others = [word for word in (slot[0] if slot else posts.VOCABULARY) if word != words[at]]
    other = others[rng.integers(len(others))]
    middle = (
        [other, words[at]], [], [other], [words[at]] * 2, [words[at + 1], words[at]],
    )[rng.integers(5)]  # fmt: skip
    behind = at + 2 if middle[1:] == [words[at]] and middle[0] == words[at + 1] else at + 1
    return " ".join(words[:at] + middle + words[behind:])


def test_every_text_parses_and_fits_the_default_budget() -> None:
    for prompt, summary in texts():
        text = f"{prompt} {summary}"
        assert posts.parses(text), text
        assert is_text(text), text
        # A word is a token; one goes to the beginning of the text, one to its end.
        assert len(prompt.split(" ")) + 1 <= 64
        assert len(summary.split(" ")) + 1 <= 48
        assert 5 <= prompt.count(" . ") <= 7


def test_texts_are_nearly_all_distinct_and_a_function_of_their_seed() -> None:
    found = texts(count=4000)
    assert len({prompt for prompt, _ in found}) > 0.99 * len(found)
    assert found[:200] == texts.__wrapped__(0, 4000)[:200]
    assert not set(found) & set(texts(seed=1))


def test_the_vocabulary_is_what_texts_are_made_of() -> None:
    words = set(" ".join(f"{p} {s}" for p, s in texts(count=4000)).split(" "))
    assert tuple(sorted(words)) == posts.VOCABULARY


def test_the_recogniser_agrees_with_the_grammar_on_corrupted_texts() -> None:
    rng = np.random.default_rng(0)
    made = [corrupted(f"{p} {s}", rng) for p, s in texts(count=5000)]
    found = np.array([posts.parses(text) for text in made])
    assert [t for t, p in zip(made, found, strict=True) if p != is_text(t)] == []
    assert 0.01 < found.mean() < 0.2


@pytest.mark.parametrize(
    "summary",
    [
        "", " .", ".", "broken bike", "broken bike ,", "broken bike , .", ", broken bike .",
        "broken bike . .", "broken bike , broken bike .", "broken bike , broken boat .",
        "by my boss , broken bike .", "broken bike by my boss .", "broken bike . by my boss .",
        "Broken bike .", "broken bike.", "broken  bike .", " broken bike .", "broken bike . ",
        "broken boss .", "my bike is broken .", "i am so sad .", "tl;dr : broken bike .",
    ],
)  # fmt: skip
def test_what_is_no_summary_does_not_parse(summary: str) -> None:
    assert posts.parses("my bike is broken . tl;dr : broken bike .")
    assert not posts.parses(f"my bike is broken . tl;dr : {summary}")


@pytest.mark.parametrize(
    "post",
    ["", "my bike is broken", "my bike is broken .", "tl;dr :", ". tl;dr :",
     "my bike is boss . tl;dr :", "my bike is broken . and tl;dr :",
     "my bike is broken . tl;dr : my boss did it ."],
)  # fmt: skip
def test_what_is_no_post_does_not_parse(post: str) -> None:
    assert not posts.parses(f"{post} broken bike .")


POST_OF_FOUR = (
    "my bike is broken . it was my boss . please help me . i paid 300 dollars . "
    "this makes me sad . tl;dr :"
)

# told 4; covered, invented, void, words
SUMMARIES = {
    "broken bike .": (1, 0, 0, 3),
    "broken bike , by my boss , cost 300 dollars , feel sad .": (4, 0, 0, 14),
    "feel sad , broken bike .": (2, 0, 0, 6),
    "broken boat .": (0, 1, 0, 3),
    "on friday .": (0, 1, 0, 3),
    "broken bike , broken boat .": (1, 1, 0, 6),
    "broken bike , broken bike .": (1, 0, 1, 6),
    "broken boat , broken boat .": (0, 1, 1, 6),
    "broken bike , the sad boss , feel sad .": (2, 0, 1, 10),
    "broken bike , feel sad": (1, 0, 1, 5),
    "broken bike": (0, 0, 1, 2),
    "broken bike , .": (0, 0, 1, 4),
    "broken bike , feel sad . .": (1, 0, 1, 7),
    "my bike is broken .": (0, 0, 1, 5),
    "": (0, 0, 1, 0),
    "   ": (0, 0, 1, 0),
    ".": (0, 0, 1, 1),
    " .": (0, 0, 1, 1),
    ", , , .": (0, 0, 2, 4),
    POST_OF_FOUR: (0, 0, 1, 26),
    "Feel sad .": (0, 0, 1, 3),
}


@pytest.mark.parametrize(("summary", "truth"), SUMMARIES.items())
def test_a_summary_is_worth_what_the_rule_says(summary: str, truth: tuple[int, ...]) -> None:
    covered, invented, void, words = truth
    for said in (summary, f" {summary}"):
        found = posts.truth(POST_OF_FOUR, said)
        assert found[:5] == (4, covered, invented, void, words)
        assert found.coverage == covered / 4
        worth = covered - invented - void - words / 10
        assert posts.reward(POST_OF_FOUR, said) == found.reward == pytest.approx(worth)


def test_every_telling_is_covered_by_its_phrase_and_by_no_other() -> None:
    assert len(grammar.TOLD) == 2 * len(grammar.STATED) == 2 * (6 * 8 + 7)
    for told, fact in grammar.TOLD.items():
        for phrase, stated in grammar.STATED.items():
            found = posts.truth(f"{told} . tl;dr :", f"{phrase} .")
            assert (found.told, found.covered, found.invented) == (
                1, stated == fact, stated != fact,
            )  # fmt: skip


def test_no_value_belongs_to_two_slots() -> None:
    values = [value for slot in grammar.SLOTS for value in slot.values]
    assert len(set(values)) == len(values)


def whole(prompt: str) -> str:
    """The summary that states every fact and nothing else."""
    told = sorted(grammar.facts(prompt), key=lambda fact: grammar.ORDER[fact[0]])
    return " , ".join(grammar.PHRASES[fact] for fact in told) + " ."


def test_the_whole_of_the_facts_is_the_best_that_can_be_said() -> None:
    rng = np.random.default_rng(1)
    for prompt, summary in texts()[:300]:
        best = posts.truth(prompt, whole(prompt))
        assert (best.coverage, best.invented, best.void) == (1, 0, 0)
        assert posts.parses(f"{prompt} {whole(prompt)}")
        assert best.reward >= posts.reward(prompt, summary)
        assert best.reward > posts.reward(prompt, corrupted(whole(prompt), rng))


def test_one_fact_more_always_pays_and_one_invented_never_does() -> None:
    for prompt, _ in texts()[:300]:
        phrases = whole(prompt).removesuffix(" .").split(" , ")
        worth = [
            posts.reward(prompt, " , ".join(phrases[:n]) + " .") for n in range(1, len(phrases) + 1)
        ]
        assert worth == sorted(worth)
        assert worth[0] > 0
        for phrase, fact in grammar.STATED.items():
            if fact not in grammar.facts(prompt):
                said = " , ".join([*phrases, phrase]) + " ."
                assert posts.reward(prompt, said) < worth[-1] - 1


def test_copying_repeating_and_padding_never_pay() -> None:
    for prompt, summary in texts()[:300]:
        once = posts.reward(prompt, summary)
        body = summary.removesuffix(" .")
        post = prompt.removesuffix(" tl;dr :")
        assert posts.reward(prompt, post) < 0
        assert posts.reward(prompt, post.replace(" .", " ,")) < 0
        for longer in (f"{body} , {summary}", f"{body} , please help me .", f"{summary} {summary}"):
            assert posts.reward(prompt, longer) < once


def test_the_order_of_the_words_matters_and_not_which_there_are() -> None:
    prompt = "my boss did it . my bike is broken . tl;dr :"
    one, other = "broken bike , by my boss .", "by bike , broken my boss ."
    assert sorted(one.split(" ")) == sorted(other.split(" "))
    assert posts.reward(prompt, one) > 1 > -2 > posts.reward(prompt, other)


def quality(writer: object, seed: int = 0) -> tuple[float, float, float]:
    rng = np.random.default_rng(seed)
    found = [posts.truth(p, writer.write(p, rng)) for p, _ in texts(count=4000)]  # type: ignore[attr-defined]
    return tuple(
        float(np.mean([getattr(t, name) for t in found]))
        for name in ("coverage", "invented", "reward")
    )  # type: ignore[return-value]


@pytest.mark.parametrize("name", ["HASTY", "CAREFUL"])
def test_a_writer_states_and_invents_as_often_as_promised(name: str) -> None:
    writer = getattr(posts, name)
    coverage, invented, _ = quality(writer)
    # Four or five facts are told, by chance, and at least one of them is stated.
    stated = [writer.covers / (1 - (1 - writer.covers) ** told) for told in (4, 5)]
    assert coverage == pytest.approx((1 - writer.invents) * np.mean(stated), abs=0.02)
    assert invented == pytest.approx(writer.invents * np.dot(stated, (4, 5)) / 2, abs=0.03)


def test_what_is_invented_is_never_told_and_the_summary_stays_well_formed() -> None:
    rng = np.random.default_rng(0)
    liar = posts.Writer(covers=0.9, invents=1.0)
    for prompt, _ in texts():
        summary = liar.write(prompt, rng)
        assert posts.truth(prompt, summary).covered == 0
        assert posts.parses(f"{prompt} {summary}")


def test_the_reference_summaries_are_better_than_what_is_learnt_from_and_not_perfect() -> None:
    hasty, careful = quality(posts.HASTY), quality(posts.CAREFUL)
    best = np.mean([posts.reward(p, whole(p)) for p, _ in texts(count=4000)])
    assert hasty[2] + 0.4 < careful[2] < best - 0.8


def test_a_judgement_of_the_world_is_bradley_terry_on_the_reward_in_both_orders() -> None:
    for prompt, one in texts()[:200]:
        other = whole(prompt)
        gap = posts.reward(prompt, one) - posts.reward(prompt, other)
        first, second, same = posts.judge(
            [Versus(prompt, one, other), Versus(prompt, other, one), Versus(prompt, one, one)]
        )
        assert first.preference == pytest.approx(1 / (1 + np.exp(-gap)))
        assert first.preference + second.preference == pytest.approx(1, abs=1e-12)
        assert same.preference == 0.5


def test_no_difference_is_too_large_for_the_judge() -> None:
    (found,) = posts.judge([Versus(POST_OF_FOUR, "broken bike .", "word " * 50_000)])
    assert found.preference == 1


def test_the_corpus_is_as_large_as_asked_for_and_no_post_occurs_twice() -> None:
    corpus = posts.corpus(Sizes(300, 200, 40, 30), np.random.default_rng(0))
    asked = [prompt.text for prompt in corpus.prompts]
    learnt = [text.partition(" tl;dr :")[0] + " tl;dr :" for text in corpus.texts]
    assert (len(learnt), len(asked)) == (300, 270)
    assert len({*asked, *learnt}) == 570
    counts = [sum(p.split == s for p in corpus.prompts) for s in ("train", "validation", "test")]
    assert counts == [200, 40, 30]


@settings(deadline=None, database=None, derandomize=True)
@given(
    st.one_of(
        st.text(),
        st.lists(st.sampled_from((*posts.VOCABULARY, ".", ",", ""))).map(" ".join),
        st.lists(st.sampled_from(tuple(SUMMARIES))).map(" ".join),
    )
)
def test_every_string_has_a_reward_no_higher_than_its_facts_are_worth(text: str) -> None:
    found = posts.truth(POST_OF_FOUR, text)
    assert found.told == 4
    assert found.reward <= 4 - 14 / 10
    assert posts.parses(f"{POST_OF_FOUR} {text}") == is_text(f"{POST_OF_FOUR} {text}")
    assert posts.truth(text, "broken bike .").covered in (0, 1)
