"""The world of instructions: what is right, what is well formed, and what its judge prefers."""

from __future__ import annotations

import importlib
import math
from functools import cache

import numpy as np
import pandas as pd
import pytest

from harness.stats.length_control import LengthControlled, length_controlled_win_rate

world = importlib.import_module("harness.tasks.worlds.instructions")
families = importlib.import_module("harness.tasks.worlds.instruction_families")
FAMILIES, Style = families.FAMILIES, world.Style
TERSE, LONG = Style(0.75, 0.1), Style(0.55, 0.9)
BASELINE = Style(0.6, 0.5)


@cache
def prompts(count: int = 2000, seed: int = 0) -> tuple[str, ...]:
    rng = np.random.default_rng(seed)
    return tuple(world.ask(rng) for _ in range(count))


@cache
def answers(style: object, seed: int = 0) -> tuple[str, ...]:
    rng = np.random.default_rng(seed)
    return tuple(world.write(rng, prompt, style) for prompt in prompts())


def family_of(prompt: str) -> list[str]:
    instruction = prompt.removesuffix(world.MARKER)
    return [name for name, family in FAMILIES.items() if family.slots(instruction) is not None]


RIGHT = {
    "give the opposite of : hot plum .": ["cold plum"],
    "what is the opposite of : empty dog ?": ["full dog"],
    "name two of the colours but not : red blue .": ["green white", "white green", "black yellow"],
    "list one of the tools without : saw rake .": ["hammer", "fork"],
    "how many words are here : dog apple saw ?": ["three"],
    "count these words : dog apple .": ["two"],
    "find one of the tools in : dog saw apple .": ["saw"],
    "which word names fruits here : dog saw apple ?": ["apple"],
    "say in reverse : hot red plum .": ["plum red hot"],
    "put in order : seven two five .": ["two five seven"],
    "sort these numbers : eight six one .": ["one six eight"],
    "who has a saw : tom has a dog and anna has a saw ?": ["anna"],
    "which is the largest : seven two five ?": ["seven"],
    "give the smallest number : seven two five .": ["two"],
    "repeat with cat for dog : red dog .": ["red cat"],
    "write blue in place of red : red dog .": ["blue dog"],
    "count up from : three plum .": ["four plum"],
    "say the next number down : three plum .": ["two plum"],
}
WRONG = {
    "give the opposite of : hot plum .": ["hot plum", "plum cold", "cold", "cold pear"],
    "name two of the colours but not : red blue .": [
        *("red green", "green green", "green", "green white black", "green dog"),
    ],
    "list one of the tools without : saw rake .": ["saw", "hammer fork", "apple"],
    "how many words are here : dog apple saw ?": ["two", "dog apple saw", "three three"],
    "find one of the tools in : dog saw apple .": ["hammer", "dog", "tools"],
    "say in reverse : hot red plum .": ["hot red plum", "plum hot red"],
    "put in order : seven two five .": ["seven five two", "two five", "two five six"],
    "who has a saw : tom has a dog and anna has a saw ?": ["tom", "mary", "anna tom"],
    "which is the largest : seven two five ?": ["two", "eight"],
    "repeat with cat for dog : red dog .": ["red dog", "cat red", "cat dog"],
    "count up from : three plum .": ["two plum", "four", "four pear"],
}


@pytest.mark.parametrize(("instruction", "words"), RIGHT.items())
def test_what_is_right_is_right_however_it_is_said(instruction: str, words: list[str]) -> None:
    for each in words:
        for answer in (
            f" {each} .",
            f" the answer is {each} .",
            f" sure . you said red dog . the answer is {each} . have a nice day .",
            f" {each} . i hope",
        ):
            assert world.check(instruction + world.MARKER, answer) == 1, answer


@pytest.mark.parametrize(("instruction", "words"), WRONG.items())
def test_what_is_wrong_is_wrong_however_it_is_said(instruction: str, words: list[str]) -> None:
    for each in words:
        for answer in (f" {each} .", f" sure . the answer is {each} . i hope this helps ."):
            assert world.check(instruction + world.MARKER, answer) == 0, answer


@pytest.mark.parametrize(
    "answer",
    [
        "",
        " ",
        " .",
        " sure .",
        " sure . have a nice day .",
        " you said hot plum .",
        " cold plum . hot plum .",
        " cold plum . cold plum .",
        " cold plum . red",
        " Cold plum .",
        " cold , plum .",
        " the answer is the answer is cold plum .",
        " cold plum sure .",
    ],
)
def test_an_answer_without_one_statement_is_not_right(answer: str) -> None:
    prompt = "give the opposite of : hot plum ." + world.MARKER
    assert world.check(prompt, answer) == 0
    assert not world.parses(prompt + answer)


def test_every_instruction_belongs_to_one_family_and_all_ten_are_drawn_alike() -> None:
    found = [family_of(prompt) for prompt in prompts()]
    assert all(len(names) == 1 for names in found)
    counts = {name: found.count([name]) for name in FAMILIES}
    assert len(counts) == 10
    assert min(counts.values()) > 150
    assert max(counts.values()) < 250


def test_every_family_has_hundreds_of_instructions() -> None:
    different = {name: 0 for name in FAMILIES}
    for prompt in set(prompts(30000, seed=1)):
        different[family_of(prompt)[0]] += 1
    assert min(different.values()) > 400


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("right", [0.0, 1.0])
def test_a_writer_is_right_when_it_means_to_be_in_every_family(name: str, right: float) -> None:
    rng = np.random.default_rng(0)
    mine = [prompt for prompt in prompts() if family_of(prompt) == [name]]
    for prompt in mine:
        assert world.check(prompt, world.write(rng, prompt, Style(right, 0.5))) == right


def test_everything_that_is_written_is_well_formed_and_fits_the_budget() -> None:
    for style in (TERSE, LONG, BASELINE, Style(0.0, 1.0)):
        for prompt, answer in zip(prompts(), answers(style), strict=True):
            assert world.parses(prompt + answer), prompt + answer
            assert answer.startswith(" ")
            assert len(prompt.split()) < 64
            assert len(answer.split()) < 48


def test_the_vocabulary_is_what_texts_are_made_of() -> None:
    rng = np.random.default_rng(0)
    asked = prompts(30000, seed=1)
    texts = [prompt + world.write(rng, prompt, Style(0.5, 0.7)) for prompt in asked]
    assert tuple(sorted(set(" ".join(texts).split()))) == world.VOCABULARY


@pytest.mark.parametrize(
    "text",
    [
        "",
        "give the opposite of : hot plum . answer :",
        "give the opposite of : hot plum . cold plum .",
        "give the opposite of : hot plum . answer : cold plum",
        "give the opposite of : hot plum . answer : cold plum . have a nice",
        "give the opposite of : hot plum . answer : sure . sure . cold plum .",
        "give the opposite of : hot plum . answer : good question .",
        "give the opposite of : hot plum . answer : the of .",
        "give the opposite : hot plum . answer : cold plum .",
        "give the opposite of : hot plum . answer : i counted them one by one . cold plum .",
    ],
)
def test_what_is_no_prompt_and_answer_does_not_parse(text: str) -> None:
    assert not world.parses(text)


def test_a_wrong_answer_parses_as_well_as_a_right_one() -> None:
    prompt = "give the opposite of : hot plum ." + world.MARKER
    assert world.parses(f"{prompt} cold plum .")
    assert world.parses(f"{prompt} dog seven anna .")


def test_a_prompt_from_elsewhere_is_refused() -> None:
    with pytest.raises(ValueError, match="not an instruction of this world"):
        world.check("what is love ?" + world.MARKER, " seven .")
    with pytest.raises(ValueError, match="not an instruction of this world"):
        world.check("give the opposite of : hot plum .", " cold plum .")


def test_equal_seeds_give_equal_instructions_and_answers() -> None:
    rng = np.random.default_rng(0)
    assert tuple(world.ask(rng) for _ in range(200)) == prompts()[:200]
    assert prompts() != prompts(seed=1)
    assert answers(TERSE)[:10] == tuple(
        world.write(rng, prompt, TERSE)
        for rng in [np.random.default_rng(0)]
        for prompt in prompts()[:10]
    )


@pytest.mark.parametrize("style", [TERSE, BASELINE, LONG])
def test_a_writer_is_right_as_often_as_asked_at_whatever_length(style: object) -> None:
    said = zip(prompts(), answers(style), strict=True)
    right = np.array([world.check(prompt, answer) for prompt, answer in said])
    length = np.array([len(answer) for answer in answers(style)])
    assert abs(right.mean() - style.right) < 4 * math.sqrt(0.25 / right.size)  # type: ignore[attr-defined]
    error = length.std() * math.sqrt(1 / right.sum() + 1 / (1 - right).sum())
    assert abs(length[right == 1].mean() - length[right == 0].mean()) < 4 * error


def test_verbosity_makes_answers_longer() -> None:
    lengths = [np.mean([len(a) for a in answers(style)]) for style in (TERSE, BASELINE, LONG)]
    assert lengths[0] + 30 < lengths[1] < lengths[2] - 30


def judge(prompt: str, first: str, second: str, bias: float) -> float:
    found = world.judged(prompt, first, second, quality=3.0, length_bias=bias)
    assert isinstance(found, float)
    return found


def test_the_judge_says_the_same_in_both_orders() -> None:
    for prompt, one, other in zip(prompts()[:300], answers(TERSE), answers(LONG), strict=False):
        assert 1 - judge(prompt, one, other, 1.5) == judge(prompt, other, one, 1.5)
        assert judge(prompt, one, one, 1.5) == 0.5


def test_the_judge_is_the_formula_of_its_docstring() -> None:
    prompt = "give the opposite of : hot plum ." + world.MARKER
    short, long, wrong = " cold plum .", " cold plum . have a nice day .", " hot plum ."
    assert world.SCALE == 40
    longer = math.tanh(18 / 40)
    assert judge(prompt, short, wrong, 1.5) == pytest.approx(
        1 / (1 + math.exp(-3 - 1.5 * math.tanh(1 / 40)))
    )
    assert judge(prompt, long, short, 1.5) == pytest.approx(1 / (1 + math.exp(-1.5 * longer)))
    assert judge(prompt, wrong, long, 0.7) == pytest.approx(
        1 / (1 + math.exp(3 + 0.7 * math.tanh(19 / 40)))
    )
    assert judge(prompt, long, short, 0.0) == 0.5


@cache
def contest(style: object, bias: float = 1.5) -> LengthControlled:
    """The figures of a writer against the baseline."""
    theirs = answers(BASELINE, seed=1)
    rows = [
        (row, judge(prompt, mine, their, bias), len(mine), len(their))
        for row, (prompt, mine, their) in enumerate(
            zip(prompts(), answers(style), theirs, strict=True)
        )
    ]
    columns = ["prompt_id", "preference", "length", "baseline_length"]
    frame = pd.DataFrame(rows, columns=columns)
    return length_controlled_win_rate(frame, draws=200, rng=np.random.default_rng(0))


def test_raw_win_rates_order_two_policies_wrongly_and_length_control_rightly() -> None:
    better, worse = contest(TERSE), contest(LONG)
    assert better.raw + 10 < worse.raw
    assert better.value > worse.value + 5
    assert better.interval[0] > worse.interval[1]


@pytest.mark.parametrize("style", [TERSE, BASELINE, LONG, Style(0.6, 0.9), Style(0.9, 0.2)])
def test_length_control_recovers_what_a_judge_without_bias_would_say(style: object) -> None:
    biased, true = contest(style), contest(style, bias=0.0).raw
    assert abs(biased.value - true) < 3
    if style != BASELINE:
        assert abs(biased.raw - true) > 5
    assert biased.coefficients["length"] > 0.5


def test_without_bias_length_moves_nothing() -> None:
    brief, wordy = contest(Style(0.6, 0.1), bias=0.0), contest(Style(0.6, 0.9), bias=0.0)
    assert abs(brief.raw - wordy.raw) < 5
    assert abs(brief.coefficients["length"]) < 0.25
