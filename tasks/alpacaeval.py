"""AlpacaEval-style: follow an instruction better than a baseline did, at whatever length.

    give the opposite of : hot plum . answer : | sure . cold plum . i hope this helps .

Answers are compared with a baseline's by a judge, and judges like long answers. The board ranks by
the length-controlled win rate and shows the raw one beside it. Pairs are labelled by the same
judge, so that a method can learn what is right, or only to go on and on.

By default this runs on a world (`worlds/instructions.py`) whose truth and whose judge are known
exactly. With `data` and `eval` it runs on real preference pairs (UltraFeedback) and on real
instructions with reference outputs (AlpacaEval's 805). Those are rendered by one plain template,
the same for every model: no model's own chat template is used.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import islice

import numpy as np

from harness.api import (
    Answers,
    Completion,
    Contest,
    Corpus,
    DataError,
    Judge,
    Metric,
    Pair,
    Prompt,
    Reading,
    RequestError,
    Sizes,
    SmallModel,
    Task,
    Versus,
    task,
)

from .readers.instruction_corpus import SLOT, RealData, labelled_pairs, read_corpus  # noqa: TID251
from .readers.instruction_rows import Source  # noqa: TID251
from .worlds import instructions as world  # noqa: TID251 (the same folder, in a wheel as well)

CORRECT = Metric("correct", "share", "higher", "share of answers that are right, by a program")
SMALL_MODEL = SmallModel(
    words=world.VOCABULARY,
    config={
        "hidden_size": 64, "intermediate_size": 160, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 128,
        # With the usual 0.02 a policy this small does not learn within the warm start to look at
        # the words that it was asked about.
        "initializer_range": 0.1,
        "tie_word_embeddings": True,
    },
)  # fmt: skip

QUALITY = 3.0
LENGTH_BIAS = 1.5
LABEL_NOISE = 1.0
MOST = 30
"""Logits: beyond, a preference is as good as 0 or 1 and has no odds that could be drawn with."""

TEMPLATE = "### Instruction:\n{instruction}\n\n### Response:\n"
BASELINE = world.Style(right=0.6, verbosity=0.5)
"""Who wrote the world's baseline answers."""

WRITERS_RIGHT = 0.9
WRITERS_VERBOSITY = (0.1, 0.9)
"""The people whose answers the world's policy learns from: from terse to long-winded."""

TRIES = 20
"""Instructions that are drawn per wanted prompt before the world is said to have too few."""


@task(paths={"data": "dataset", "eval": "dataset", "baseline": "dataset"})
def alpacaeval(
    *,
    data: str | None = None,
    data_split: str = "train",
    eval: str | None = None,  # the field's word for it
    eval_split: str = "eval",
    baseline: str | None = None,
    generator: str | None = None,
    template: str = TEMPLATE,
    quality: float = QUALITY,
    length_bias: float = LENGTH_BIAS,
    label_noise: float = LABEL_NOISE,
    temperature: float = 1.0,
) -> Task:
    """Answer instructions better than a baseline does, whatever the length.

    Args:
        data: folder, file or hub id of preference pairs with columns `prompt`, `chosen` and
            `rejected`, texts or lists of messages; None: the embedded world.
        data_split: of `data`; "train_prefs" in HuggingFaceH4/ultrafeedback_binarized.
        eval: folder, file or hub id of instructions in a column `instruction` with the baseline's
            answers in `output` or `reference_outputs`; needed with `data`.
        eval_split: of `eval`; a single file is whatever split is asked for.
        baseline: file of other answers to the instructions of `eval`, in the form of AlpacaEval's
            `model_outputs.json`; None: those that `eval` has.
        generator: whose answers are the baseline's; None: there are those of one alone.
        template: how an instruction becomes a prompt.
        quality: what a right answer is worth to the world's judge, in logits.
        length_bias: what a much longer answer is worth to it, in logits; 0: the truth alone.
        label_noise: of the labels of the world's pairs: at 1 they are drawn as the judge judges, at
            0 the answer that it prefers is always chosen.
        temperature: of the completions, those that make pairs and those that are scored.
    """
    if temperature <= 0 or label_noise < 0 or quality < 0:
        raise RequestError(
            "alpacaeval: temperature must be above 0, label_noise and quality 0 or more"
        )
    if quality + abs(length_bias) > MOST:
        raise RequestError(
            f"alpacaeval: quality and length_bias are together at most {MOST} logits"
        )
    if (data is None) != (eval is None):
        raise RequestError("alpacaeval.data and alpacaeval.eval go together: give both or neither")
    if data is None or eval is None:
        of_data = {
            "data_split": data_split != "train", "eval_split": eval_split != "eval",
            "baseline": baseline, "generator": generator, "template": template != TEMPLATE,
        }  # fmt: skip
        _refuse(of_data, "is of real data: give data and eval too")
        return _world(_judge(quality, length_bias), label_noise, temperature)
    of_world = {
        "quality": quality != QUALITY, "length_bias": length_bias != LENGTH_BIAS,
        "label_noise": label_noise != LABEL_NOISE,
    }  # fmt: skip
    _refuse(of_world, "is of the embedded world, which data replace: leave it out")
    if template.count(SLOT) != 1:
        raise RequestError(f"alpacaeval.template must hold {SLOT} once")
    real = RealData(
        Source(data, data_split), Source(eval, eval_split), baseline, generator, template
    )
    return Task(
        corpus=partial(read_corpus, real),
        pairs=partial(labelled_pairs, real),
        score=lambda completions: [{} for _ in completions],
        metrics=(),
        samples=0,
        temperature=temperature,
        contest=Contest("answer-token", length_controlled=True),
    )


def _refuse(settings: Mapping[str, object], reason: str) -> None:
    for name, given in settings.items():
        if given:
            raise RequestError(f"alpacaeval.{name} {reason}")


def _world(judge: Judge, noise: float, temperature: float) -> Task:
    return Task(
        corpus=_world_corpus,
        pairs=partial(_pairs, judge, noise),
        score=_score,
        metrics=(CORRECT,),
        temperature=temperature,
        contest=Contest("answer-token", rule=judge, length_controlled=True),
        small_model=SMALL_MODEL,
        parses=world.parses,
    )


def _judge(quality: float, length_bias: float) -> Judge:
    def judge(comparisons: Sequence[Versus]) -> list[Reading]:
        return [
            Reading(world.judged(*versus, quality=quality, length_bias=length_bias))
            for versus in comparisons
        ]

    return judge


def _score(completions: Sequence[Completion]) -> list[dict[str, float]]:
    return [{"correct": world.check(c.prompt, c.text)} for c in completions]


def _world_corpus(sizes: Sizes, rng: np.random.Generator) -> Corpus:
    """Answers of all kinds to learn from, and the baseline's answer to every prompt.

    Raises:
        DataError: the world has fewer instructions than the budget asks for.
    """
    wanted = sizes.test + sizes.validation + sizes.train
    found: dict[str, str] = {}
    for _ in range(TRIES * wanted):
        if len(found) == wanted:
            break
        prompt = world.ask(rng)
        if prompt not in found:
            found[prompt] = world.write(rng, prompt, BASELINE)
    else:
        raise DataError(
            f"the world has too few different instructions: {len(found)} of {wanted} were found; "
            "lower budget.pairs, budget.validation_pairs or budget.test_prompts"
        )
    prompts = _prompts(list(found.items()), sizes)
    held_out = {prompt.text for prompt in prompts if prompt.split == "test"}
    asked = (prompt for prompt in iter(partial(world.ask, rng), None) if prompt not in held_out)
    texts = []
    for prompt in islice(asked, sizes.texts):
        style = world.Style(WRITERS_RIGHT, rng.uniform(*WRITERS_VERBOSITY))
        texts.append(prompt + world.write(rng, prompt, style))
    return Corpus(texts, prompts)


def _prompts(asked: Sequence[tuple[str, str]], sizes: Sizes) -> list[Prompt]:
    """The prompts and the answers to them; the test's first, whose families are drawn alike."""
    splits = ["test"] * sizes.test + ["validation"] * sizes.validation + ["train"] * sizes.train
    return [
        Prompt(f"{split}-{i}", split, text, original)  # type: ignore[arg-type]
        for i, (split, (text, original)) in enumerate(zip(splits, asked, strict=True))
    ]


def _pairs(
    judge: Judge,
    noise: float,
    _variant: str,
    prompts: Sequence[Prompt],
    answers: Mapping[str, Answers],
    rng: np.random.Generator,
) -> list[Pair]:
    """One pair of two samples for each prompt, labelled by the judge.

    P(first is chosen) = sigmoid(logit(preference) / noise), drawn with logistic noise.
    """
    both = [answers[prompt.prompt_id].samples[:2] for prompt in prompts]
    readings = judge([Versus(one.prompt, one.text, other.text) for one, other in both])
    found = []
    for prompt, (one, other), reading in zip(prompts, both, readings, strict=True):
        assert reading.preference is not None, "a world's judge can always tell"
        odds = np.log(reading.preference) - np.log1p(-reading.preference)
        chosen, rejected = (one, other) if odds + noise * rng.logistic() > 0 else (other, one)
        truth = world.check(chosen.prompt, chosen.text), world.check(rejected.prompt, rejected.text)
        found.append(Pair.of(prompt, chosen, rejected, truth))
    return found
