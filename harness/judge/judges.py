"""Which judge an experiment's settings mean, and whether it can be asked at all.

Nothing here loads torch or a client before a judge is opened: planning asks these questions too.
"""

from __future__ import annotations

import importlib.util
import math
import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.address import check_key, check_url
from harness.backends import JudgeSettings
from harness.contracts.judge import Judge
from harness.contracts.task import Contest
from harness.data.identity import pin
from harness.errors import RequestError
from harness.judge.asking.prices import Price, load_price
from harness.judge.asking.template import Template, load_template

Kind = Literal["rule", "reward-model", "openai"]
Told = Callable[[int, int], None]


def kind_of(settings: JudgeSettings, contest: Contest) -> Kind:
    """The kind that "auto" stands for: of the model that is named, else the task's own rule.

    Raises:
        RequestError: the task has no rule and no model is named; or a rule is to have a model.
    """
    if settings.kind == "auto" and settings.model is not None:
        return "reward-model" if Path(settings.model).expanduser().is_dir() else "openai"
    kind = settings.kind if settings.kind != "auto" else "rule"
    if kind == "rule" and contest.rule is None:
        raise RequestError(
            "this task's answers need a judge: name the model of an OpenAI-compatible end point "
            "(judge.model, and judge.base_url for a server of your own), or a reward model "
            "(judge.kind=reward-model and judge.model=its folder or hub id)"
        )
    if kind == "rule" and settings.model is not None:
        raise RequestError("judge.kind=rule asks no model: leave judge.model out, or the kind")
    return kind


def check_judge(settings: JudgeSettings, contest: Contest) -> None:
    """Make sure that a judge can be asked, before anything is made that it shall judge.

    Raises:
        RequestError: something is missing or means nothing; says what to give.
        DataError: a reward model does not exist.
    """
    pinned(settings, contest)
    if kind_of(settings, contest) == "openai":
        if missing := [p for p in ("openai", "aiohttp") if importlib.util.find_spec(p) is None]:
            raise RequestError(
                f"judge.kind=openai needs the package '{missing[0]}': pip install 'openai[aiohttp]'"
            )
        check_key(check_url(settings.base_url))
        _price(settings)


def pinned(settings: JudgeSettings, contest: Contest) -> dict[str, Any]:
    """Whatever moves this judge's verdicts, and nothing that moves another's: for a stage's key.

    Fields of `JudgeSettings` under their names; and under names of its own ("content",
    "template_digest") what is in files that the settings only name.

    Raises:
        RequestError: no model is named, or the template cannot be asked so.
        DataError: a reward model does not exist.
    """
    kind = kind_of(settings, contest)
    found = {"kind": kind, "retest": settings.retest}
    if kind == "rule":
        return found
    if kind == "reward-model":
        model, content = pin(_model(settings, kind), "model")
        return {**found, "model": model, "content": content}
    return {
        **found, "model": _model(settings, kind), "base_url": check_url(settings.base_url),
        "template": settings.template or contest.template,
        "template_digest": _template(settings, contest).digest,
        "reading": settings.reading, "temperature": settings.temperature,
    }  # fmt: skip


def _model(settings: JudgeSettings, kind: Kind) -> str:
    if settings.model is None:
        raise RequestError(f"judge.kind={kind} needs judge.model")
    return settings.model


@dataclass(frozen=True)
class OpenJudge:
    """A judge that can be asked.

    Attributes:
        judge: what is asked.
        again: makes a judge of the same kind that looks at none of the first one's answers.
        facts: what a manifest says about it and about what was asked until now.
    """

    judge: Judge
    again: Callable[[], Judge]
    facts: Callable[[], dict[str, Any]]


@contextmanager
def open_judge(
    settings: JudgeSettings,
    contest: Contest,
    shared: Path,
    report: Told = lambda done, total: None,
    *,
    purse: str | None = None,
) -> Iterator[OpenJudge]:
    """The judge of these settings, ready to be asked; its cache is closed when the block ends.

    Args:
        settings: of the experiment.
        contest: of the task.
        shared: the folder of the verdict cache.
        report: is told how many verdicts there are, of how many.
        purse: a name that all processes share whose calls `max_cost` limits together; None: the
            limit is this judge's alone.

    Raises:
        RequestError, DataError: as `check_judge`.
    """
    kind = kind_of(settings, contest)
    if kind == "openai":
        with _language_model(settings, contest, shared, report, purse) as opened:
            yield opened
    elif kind == "reward-model":
        from harness.judge.rewards.reward_model import load_reward_judge

        model = load_reward_judge(_model(settings, kind))
        yield OpenJudge(model, lambda: model, lambda: {"kind": kind, **model.facts})
    else:
        rule = contest.rule
        assert rule is not None, "checked in kind_of"
        yield OpenJudge(rule, lambda: rule, lambda: {"kind": kind})


@contextmanager
def _language_model(
    settings: JudgeSettings, contest: Contest, shared: Path, report: Told, purse: str | None
) -> Iterator[OpenJudge]:
    from harness.judge.asking.ask import EndPoint
    from harness.judge.asking.language_model import LanguageModel
    from harness.judge.asking.patience import Patience
    from harness.judge.asking.purse import Purse
    from harness.judge.asking.verdict_cache import open_cache

    about, price = pinned(settings, contest), _price(settings)
    end_point = EndPoint(about["base_url"], about["model"], settings.temperature, settings.timeout)
    process = f"{os.getpid()}-{uuid.uuid4().hex[:8]}"
    with open_cache(shared) as cache:
        money = Purse(purse or process, process, price, settings.max_cost, cache)
        judge = LanguageModel(
            end_point, _template(settings, contest), settings.reading, cache, money,
            settings.concurrency, Patience(settings.retries), report=report,
        )  # fmt: skip
        yield OpenJudge(judge, judge.again, lambda: {**about, **judge.facts()})


def _template(settings: JudgeSettings, contest: Contest) -> Template:
    template = load_template(settings.template or contest.template)
    if settings.reading == "logprobs" and template.sides is None:
        raise RequestError(
            "judge.reading=logprobs needs a template with two labels that are one token each; "
            f"'{template.name}' has {', '.join(template.labels)}: leave judge.reading out"
        )
    return template


def _price(settings: JudgeSettings) -> Price | None:
    limit = settings.max_cost
    if limit is not None and not (math.isfinite(limit) and limit >= 0):
        raise RequestError(f"judge.max_cost must be an amount of money, not {limit}")
    if limit is not None and settings.prices is None:
        raise RequestError(
            "judge.max_cost needs judge.prices: a TOML file with a line for each model, such as "
            f'"{settings.model}" = {{input = 2.5, output = 10.0}} (for a million tokens)'
        )
    if settings.prices is None:
        return None
    return load_price(settings.prices, _model(settings, "openai"))
