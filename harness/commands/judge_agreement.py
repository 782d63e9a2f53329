"""`harness judge --against DATA`: how far a judge agrees with people who compared the same."""

from __future__ import annotations

import sys
from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

from harness.backends import JudgeSettings
from harness.commands.judge import name_of, noise, opened
from harness.commands.judge_screen import (
    print_agreement,
    print_judge,
    print_noise,
    print_unreadable,
)
from harness.contracts.task import Contest
from harness.judge.asking.crowd import UnansweredError
from harness.judge.both_orders import Match, both_orders, unreadable
from harness.judge.exchange.agreement import by_subset
from harness.judge.exchange.annotations import folder_name, write_json
from harness.judge.exchange.people import read_people
from harness.judge.judges import pinned


def agree(args: Namespace, settings: JudgeSettings, contest: Contest) -> int:
    """Judge what people compared; print both beside one another. Returns the exit status."""
    source = Path(args.against).expanduser()
    pairs = read_people(source)[: args.limit]
    matches = [Match(pair.prompt, 0, 0.0, pair.prompt, pair.first, pair.second) for pair in pairs]
    with opened(settings, contest, args) as judge:
        try:
            judged = both_orders(judge.judge, matches)
            again = noise(settings, judge, matches, judged)
        except UnansweredError as error:
            print_judge(judge.facts())
            print(f"harness: {error}", file=sys.stderr)
            return 1
        facts = judge.facts()
    found = by_subset(pairs, judged.verdicts)
    print_agreement(found, settings.unreadable)
    print_noise(again)
    print_unreadable(unreadable(judged)["said"])
    print_judge(facts)
    if args.out:
        name = f"{folder_name(source.name)}-{folder_name(name_of(settings, contest))}.json"
        content = {
            "data": source.name, "judge": {**pinned(settings, contest), **facts},
            "agreement": {subset: asdict(figures) for subset, figures in found.items()},
            "unreadable_answers": unreadable(judged), "retest": again,
        }  # fmt: skip
        write_json(Path(args.out) / name, content)
        if not args.quiet:
            print(f"\nFigures: {Path(args.out) / name}", file=sys.stderr)
    return 0
