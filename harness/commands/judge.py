"""`harness judge`: given answers against a baseline's, or a judge against what people said."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.config import read_assignment, split_variant
from harness.config_parts import make_judge
from harness.errors import RequestError, unknown
from harness.files import check_writable

if TYPE_CHECKING:
    from harness.backends import JudgeSettings
    from harness.contracts.task import Contest
    from harness.judge.both_orders import Judged, Match
    from harness.judge.judges import OpenJudge

TEMPLATE = "answer-token"
"""How a model is asked where no task says it: AlpacaEval's form."""


def judge(args: Namespace) -> int:
    """Ask a judge; print what it says. Returns the exit status: 1 where verdicts are missing.

    Raises:
        RequestError: the request cannot be understood, or the judge cannot be asked.
        DataError: a file does not hold what it must.
    """
    settings = read_settings(args)
    contest = _contest(args.task)
    from harness.judge.judges import check_judge

    check_judge(settings, contest)
    if args.out:
        check_writable(Path(args.out))
    # From here on numpy and pandas are needed.
    from harness.commands import judge_agreement, judge_outputs

    command = judge_agreement.agree if args.against else judge_outputs.compare
    return command(args, settings, contest)


def read_settings(args: Namespace) -> JudgeSettings:
    """Who judges: flags, and `--set judge.KEY=VALUE` over them.

    Raises:
        RequestError: something in it means nothing.
    """
    if bool(args.against) == bool(args.outputs):
        raise RequestError(
            "judge what? OUTPUTS with --baseline, or --against DATA that people compared"
        )
    if args.outputs and not args.baseline:
        raise RequestError("which answers are they compared with? --baseline OUTPUTS")
    if args.against and (args.baseline or args.instructions or args.common):
        raise RequestError("--baseline, --instructions and --common belong to OUTPUTS")
    if args.limit is not None and args.limit < 1:
        raise RequestError(f"--limit must be at least 1, not {args.limit}")
    flags = {
        "kind": args.judge, "model": args.judge_model, "template": args.template,
        "prices": args.prices, "max_cost": args.max_cost,
    }  # fmt: skip
    keys = {key: value for key, value in flags.items() if value is not None}
    for text in args.set or []:
        key, value = read_assignment(text)
        table, _, name = key.partition(".")
        if table != "judge" or not name:
            raise unknown("key", key, [f"judge.{k}" for k in (*flags, "base_url", "reading")])
        keys[name] = value
    return make_judge(keys)


def _contest(task: str | None) -> Contest:
    from harness.contracts.task import Contest

    if task is None:
        return Contest(template=TEMPLATE)
    from harness.registry import load_task

    plugin = load_task(split_variant(task)[0])
    found = plugin.build(**plugin.resolve()).contest
    if found is None:
        raise RequestError(f"task '{task}' compares its answers with no baseline's")
    return found


@contextmanager
def opened(settings: JudgeSettings, contest: Contest, args: Namespace) -> Iterator[OpenJudge]:
    """The judge, with the verdicts that all runs share."""
    from harness.judge.judges import kind_of, open_judge
    from harness.store.store import Store

    root = Path(args.runs).absolute() / "store"
    if kind_of(settings, contest) == "openai":
        root = Store.open(root).root
    live = sys.stderr.isatty() and not args.quiet

    def told(done: int, total: int) -> None:
        if live:
            print(f"\r  {done} of {total} verdicts\x1b[K", end="", file=sys.stderr, flush=True)

    try:
        with open_judge(settings, contest, root / "shared", told) as found:
            yield found
    finally:
        if live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def noise(
    settings: JudgeSettings, judge: OpenJudge, matches: Sequence[Match], judged: Judged
) -> Any:
    """How much the judge differs from itself, where a share is to be asked again; else None."""
    from harness.judge.both_orders import retest_noise

    if not settings.retest:
        return None
    return retest_noise(judge.again(), matches, judged, settings.retest)


def name_of(settings: JudgeSettings, contest: Contest) -> str:
    """The judge's name in tables and files: the model and how it is asked, or the kind."""
    from harness.judge.judges import pinned

    about = pinned(settings, contest)
    if about["kind"] == "rule":
        return "rule"
    model = Path(about["model"]).name if about["kind"] == "reward-model" else about["model"]
    asked = Path(about["template"]).stem if "template" in about else ""
    return f"{model} {asked}".strip()
