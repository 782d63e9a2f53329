"""`harness judge OUTPUTS --baseline OUTPUTS`: given answers, without any training."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.backends import JudgeSettings
from harness.commands.judge import name_of, noise, opened
from harness.commands.judge_screen import print_figures, print_judge, print_noise, print_unreadable
from harness.contracts.task import Contest
from harness.errors import RequestError
from harness.judge.asking.crowd import UnansweredError
from harness.judge.both_orders import Judged, Match, both_orders, unreadable
from harness.judge.exchange.annotations import annotation, folder_name, write, write_json
from harness.judge.exchange.figures import Figures, figures
from harness.judge.exchange.json_rows import shown
from harness.judge.exchange.outputs import Joined, Outputs, join, read_instructions, read_outputs
from harness.judge.judges import OpenJudge, pinned


@dataclass(frozen=True)
class _Told:
    """What one file of outputs came to.

    Attributes:
        again: how much the judge differs from itself, where that was measured.
        said: some of what could not be read.
    """

    figures: Figures
    again: Any
    said: Sequence[str]


def compare(args: Namespace, settings: JudgeSettings, contest: Contest) -> int:
    """Judge each file against the baseline; print one table. Returns the exit status."""
    contests = read(args)
    told: list[_Told] = []
    missing = None
    with opened(settings, contest, args) as judge:
        for joined in contests:
            try:
                told.append(_one(args, settings, contest, judge, joined))
            except UnansweredError as error:
                missing = f"{shown(joined[0].answer.generator)}: {error}"
                break
        facts = judge.facts()
    _show(told, facts)
    if args.out:
        write_json(Path(args.out) / "judge.json", facts)
    if missing:
        print(f"harness: {missing}", file=sys.stderr)
    elif args.out and not args.quiet:
        print(f"\nAnnotations: {args.out}", file=sys.stderr)
    return 1 if missing else 0


def _show(told: Sequence[_Told], facts: Mapping[str, Any]) -> None:
    if told:
        print_figures([one.figures for one in told])
    for one in told:
        print_noise(one.again)
        print_unreadable(one.said)
    print_judge(facts)


def read(args: Namespace) -> list[list[Joined]]:
    """The answers to be judged, one list for each file of outputs.

    Raises:
        DataError: a file is not in the form, or its prompts are not the baseline's.
        RequestError: two files are of one generator.
    """
    known = read_instructions(Path(args.instructions)) if args.instructions else None
    baseline = read_outputs(args.baseline, known)
    outputs = [read_outputs(source, known) for source in args.outputs]
    _distinct(outputs)
    return [join(each, baseline, common=args.common)[: args.limit] for each in outputs]


def _distinct(outputs: Sequence[Outputs]) -> None:
    places: dict[str, str] = {}
    for each in outputs:
        place = folder_name(each.generator).lower()
        if place in places:
            both = f"{places[place]} and {each.source} are both of '{shown(each.generator)}'"
            raise RequestError(f"{both}: give them names that differ ('generator' in their rows)")
        places[place] = each.source


def _one(
    args: Namespace,
    settings: JudgeSettings,
    contest: Contest,
    judge: OpenJudge,
    joined: Sequence[Joined],
) -> _Told:
    matches = [Match(a.instruction, 0, 0.0, a.instruction, a.output, b.output) for a, b in joined]
    judged = both_orders(judge.judge, matches)
    again, lost = noise(settings, judge, matches, judged), unreadable(judged)
    found = figures(joined, judged.verdicts, unreadable=settings.unreadable)
    if args.out:
        facts = {
            **asdict(found), "judge": pinned(settings, contest), "unreadable_answers": lost,
            "retest": again,
        }  # fmt: skip
        _write(Path(args.out), name_of(settings, contest), joined, judged, facts)
    return _Told(found, again, lost["said"])


def _write(out: Path, annotator: str, joined: Sequence[Joined], judged: Judged, facts: Any) -> None:
    said = [
        {"output_2_first": one and one.said, "output_1_first": other and other.said}
        for one, other in zip(judged.shown_first, judged.shown_second, strict=True)
    ]
    rows = [
        annotation(*answers, verdict, annotator, words)
        for answers, verdict, words in zip(joined, judged.verdicts, said, strict=True)
    ]
    write(out, [answers.answer for answers in joined], rows)
    generator = joined[0].answer.generator
    write_json(out / folder_name(generator) / folder_name(annotator) / "figures.json", facts)
