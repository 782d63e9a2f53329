"""The contract of a task: data, prompts, pairs, decoding and the score of a completion."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_type_hints

import numpy as np

from harness.contracts.judge import Judge
from harness.contracts.settings import Setting, checked
from harness.errors import RequestError, unknown
from harness.records import Completion, Pair, Prompt


@dataclass(frozen=True)
class Metric:
    """What a score means.

    Attributes:
        unit: of one value.
        better: which direction is better, or None where neither is (length, KL).
        meaning: one sentence for the reader of a board.
        detail: kept for analysis, no column of a board.
    """

    name: str
    unit: str
    better: Literal["higher", "lower"] | None
    meaning: str
    detail: bool = False


WIN_RATE = Metric(
    "win_rate", "points", "higher",
    "preference for the policy's answer over the baseline's, both orders averaged; 50 is a draw",
)  # fmt: skip
LC_WIN_RATE = Metric(
    "lc_win_rate", "points", "higher",
    "the win rate that is expected between answers of equal length, by a logistic regression",
)  # fmt: skip


STYLE = tuple(
    Metric(f"style_{name}", "share", None, f"{what} than the baseline's", detail=True)
    for name, what in (
        ("length", "how much longer an answer is, in words,"),
        ("headers", "how many more headers a word an answer has"),
        ("lists", "how many more list items a word an answer has"),
        ("bold", "how many more bold spans a word an answer has"),
    )
)
"""Arena-Hard's covariates of style; see `harness.stats.strength.style_differences`."""


@dataclass(frozen=True)
class Corpus:
    """A task's data: texts for the supervised warm start, and prompts in three disjoint splits."""

    texts: Sequence[str]
    prompts: Sequence[Prompt]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Sizes:
    """How much of its data a task is asked for; it may have less, and the manifest says so.

    Attributes:
        texts: for the supervised warm start.
        train: prompts for training pairs; validation and test likewise.
    """

    texts: int
    train: int
    validation: int
    test: int


@dataclass(frozen=True)
class SmallModel:
    """A causal model built from a config, for worlds that need no pretrained one.

    Attributes:
        words: the whole vocabulary; words are split at spaces.
        config: keyword arguments of `transformers.LlamaConfig`, without vocabulary and token ids.
    """

    words: Sequence[str]
    config: Mapping[str, Any]


@dataclass(frozen=True)
class Answers:
    """The answers to one prompt that pairs can be made of, each as training would see it.

    Attributes:
        samples: as many of the reference policy as the task asks for.
        original: what followed the prompt in the data, cut to the token limit where the budget
            cuts: a label must belong to the text that is trained on. None where nothing followed.
    """

    samples: Sequence[Completion]
    original: Completion | None


@dataclass(frozen=True)
class Contest:
    """Answers are compared with a baseline's by a judge, in both orders.

    The baseline's answer to a prompt is the prompt's `original`.

    Attributes:
        template: how a language model is asked: a name in `harness/judge/asking/templates`.
        rule: an embedded world's own judge; None where only a model can tell.
        length_controlled: whether the board ranks by the length-controlled win rate, not the raw.
    """

    template: str
    rule: Judge | None = None
    length_controlled: bool = False


@dataclass(frozen=True)
class Task:
    """What a task plug-in returns for its settings.

    Attributes:
        corpus: makes texts and prompts from sizes and a generator.
        pairs: (variant, prompts, answers, generator) to labelled pairs.
        score: one mapping from metric name to value for each completion, in order.
        metrics: what `score` returns; without a contest the first is what the board ranks by.
        samples: of the reference policy to a prompt, for pairs; 0 where the data bring the pairs.
        temperature: of these samples.
        temperatures: of the completions that are scored; none: `temperature` alone.
        contest: how answers are compared with a baseline's; the board then ranks by the win rate.
        small_model: the policy of the embedded world, where no model is named.
        parses: whether a text is well-formed, where the task can tell.
    """

    corpus: Callable[[Sizes, np.random.Generator], Corpus]
    pairs: Callable[
        [str, Sequence[Prompt], Mapping[str, Answers], np.random.Generator],
        list[Pair],
    ]
    score: Callable[[Sequence[Completion]], list[dict[str, float]]]
    metrics: Sequence[Metric]
    samples: int = 2
    temperature: float = 1.0
    temperatures: Sequence[float] = ()
    contest: Contest | None = None
    small_model: SmallModel | None = None
    parses: Callable[[str], bool] | None = None

    @property
    def primary(self) -> Metric:
        """What the board ranks by."""
        if self.contest is None:
            return self.metrics[0]
        return LC_WIN_RATE if self.contest.length_controlled else WIN_RATE

    @property
    def decoded(self) -> tuple[float, ...]:
        """The temperatures of the completions that are scored."""
        return tuple(self.temperatures) or (self.temperature,)


@dataclass(frozen=True)
class TaskPlugin:
    """A task by name, before its settings are known; made by `@task`.

    Attributes:
        variants: boards of this task that differ in their pairs only, such as quality tiers.
        paths: settings that name a folder or a hub id, and what it holds; their content is part
            of every key.
    """

    name: str
    build: Callable[..., Task]
    defaults: Mapping[str, Setting]
    summary: str
    variants: tuple[str, ...]
    paths: Mapping[str, Literal["dataset", "model"]] = field(default_factory=dict)

    def resolve(self, settings: Mapping[str, Any] | None = None) -> dict[str, Setting]:
        """All settings, the given ones over the defaults.

        Raises:
            RequestError: a setting does not exist or has the wrong type.
        """
        types = get_type_hints(self.build)
        resolved = dict(self.defaults)
        for key, value in (settings or {}).items():
            if key not in self.defaults:
                raise unknown(f"setting of task '{self.name}'", key, self.defaults)
            resolved[key] = checked(f"{self.name}.{key}", value, types.get(key))
        return resolved


def task(
    *,
    variants: tuple[str, ...] = (),
    paths: Mapping[str, Literal["dataset", "model"]] | None = None,
) -> Callable[[Callable[..., Task]], TaskPlugin]:
    """Describe a function from settings to a `Task`; registers nothing."""

    def describe(build: Callable[..., Task]) -> TaskPlugin:
        name = str(getattr(build, "__name__", build))
        defaults = {}
        for parameter in inspect.signature(build).parameters.values():
            if parameter.kind is not parameter.KEYWORD_ONLY or parameter.default is parameter.empty:
                raise RequestError(f"task '{name}': '{parameter.name}' must be a keyword setting")
            defaults[parameter.name] = parameter.default
        summary = (inspect.getdoc(build) or "").split("\n", 1)[0]
        return TaskPlugin(name, build, defaults, summary, variants, dict(paths or {}))

    return describe
