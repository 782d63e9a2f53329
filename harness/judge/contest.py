"""Verdicts on stored completions: each compared with the baseline's answer, in both orders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from harness.backends import JudgeSettings
from harness.contracts.task import Contest
from harness.errors import DataError, RequestError
from harness.judge.both_orders import Match, both_orders, order_effects, retest_noise, unreadable
from harness.judge.judges import kind_of, open_judge, pinned
from harness.records import Completion, read_jsonl, write_jsonl
from harness.registry import load_task
from harness.store.stage import Work


def judge(work: Work) -> Mapping[str, Any]:
    """Stage: one verdict for each completion, in order.

    The settings hold fields of `JudgeSettings` ("judge") and what they stand for ("judge_is", by
    `harness.judge.judges.pinned`).

    Raises:
        DataError: the task compares nothing, or a prompt has no answer of the baseline.
        RequestError: the judge cannot be asked: settings, key, model.
        UnansweredError: some comparisons have no verdict yet; those that have one are kept.
    """
    s = work.settings
    contest = load_task(s["task"]).build(**s["task_settings"]).contest
    if contest is None:
        raise DataError(f"task '{s['task']}' compares its answers with no baseline's")
    settings = _settings(work, contest)
    completions = read_jsonl(work.inputs["completions"] / "completions.jsonl", Completion)
    matches = matches_of(completions)

    def told(done: int, total: int) -> None:
        work.report(done, total, "verdicts")

    shared, purse = work.shared or work.scratch, work.means.get("purse")
    with open_judge(settings, contest, shared, told, purse=purse) as opened:
        _need_planned(work, opened.facts())
        judged = both_orders(opened.judge, matches)
        again = {}
        if settings.retest:
            noise = retest_noise(opened.again(), matches, judged, settings.retest)
            again = {"retest": noise}
        write_jsonl(work.out / "verdicts.jsonl", judged.verdicts)
        equal = sum(not verdict.asked for verdict in judged.verdicts)
        return {
            **opened.facts(), "verdicts": len(matches), "equal": equal,
            "unreadable": unreadable(judged), **order_effects(judged.verdicts), **again,
        }  # fmt: skip


def _settings(work: Work, contest: Contest) -> JudgeSettings:
    given = {**work.settings["judge"], **work.means}
    names = {field.name for field in fields(JudgeSettings)}
    settings = JudgeSettings(**{name: value for name, value in given.items() if name in names})
    kind, is_ = kind_of(settings, contest), work.settings.get("judge_is", {})
    if kind == "reward-model":  # at the commit that was planned, and not at today's
        return replace(settings, kind=kind, model=is_.get("model", settings.model))
    if kind == "openai":
        digest = pinned(settings, contest)["template_digest"]
        planned = is_.get("template_digest", digest)
        if digest != planned:
            raise RequestError(
                f"the judge's template {settings.template} was changed since the work was planned: "
                "run the same command again"
            )
    return settings


def _need_planned(work: Work, facts: Mapping[str, Any]) -> None:
    """Make sure that a reward model is what it was when the work was planned."""
    planned = work.settings.get("judge_is", {}).get("content")
    if planned is not None and facts.get("revision") != planned:
        raise RequestError(
            f"the reward model {facts.get('name')} was changed since the work was planned: run the "
            "same command again"
        )


def matches_of(completions: Sequence[Completion]) -> list[Match]:
    """What is to be compared, in the order of the completions.

    Raises:
        DataError: a prompt has no answer of the baseline; names it.
    """
    without = list(dict.fromkeys(c.prompt_id for c in completions if not c.original.strip()))
    if without:
        raise DataError(
            f"{len(without)} prompts have no answer of the baseline to compare with, such as "
            f"'{without[0]}': a task with a contest must give every test prompt an `original`"
        )
    return [
        Match(c.prompt_id, c.sample, c.temperature, c.prompt, c.text, c.original)
        for c in completions
    ]
