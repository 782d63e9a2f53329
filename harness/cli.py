"""The command line: parse, call one function, print."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from harness.errors import HarnessError, RequestError, unknown

COMMANDS = ("run", "list", "show", "check", "new", "board", "compare", "doctor")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 done, 1 some cells failed, 2 the request cannot be understood, 130 interrupted.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    try:
        if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
            raise unknown("command", arguments[0], COMMANDS)
        args = parser().parse_args(arguments)
        return _call(args)
    except HarnessError as error:
        print(f"harness: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("harness: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has seen enough; let the interpreter close quietly.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _call(args: argparse.Namespace) -> int:
    """Import only what the command needs: `--help` and `list` stay far from torch."""
    if args.command == "run":
        from harness.commands.run import run

        return run(args)
    if args.command in ("list", "show"):
        from harness.commands import plugins, show

        return plugins.listing(args) if args.command == "list" else show.show(args)
    if args.command == "check":
        from harness.commands.check import check

        return check(args)
    if args.command == "new":
        from harness.commands.new import new

        return new(args)
    if args.command == "doctor":
        from harness.commands.doctor import doctor

        return doctor(args)
    from harness.commands import boards

    return boards.rebuild(args) if args.command == "board" else boards.compare(args)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise RequestError(f"{message} (see `{self.prog} --help`)")


def parser() -> argparse.ArgumentParser:
    """All commands and flags."""
    top = _Parser(
        prog="harness",
        description="Train preference-optimisation methods under one budget, evaluate them alike, "
        "and test every difference.",
    )
    commands = top.add_subparsers(dest="command", required=True, parser_class=_Parser)
    _run(commands.add_parser("run", help="train, generate, score and compare methods"))
    listing = commands.add_parser("list", help="what there is")
    listing.add_argument(
        "kind", nargs="?", choices=("methods", "tasks", "worlds", "runs"),
        help="methods and tasks when left out",
    )  # fmt: skip
    _runs(listing)
    show = commands.add_parser("show", help="a method's formula, what it reads, settings, source")
    show.add_argument("name", nargs="?", help="a method or a task; with --markdown, all methods")
    show.add_argument("--markdown", action="store_true", help="as the page docs/methods.md")
    check = commands.add_parser("check", help="hold a method to the conformance suite")
    check.add_argument("method", nargs="+", help="a name, a path such as ./mine.py, or `all`")
    check.add_argument("--json", action="store_true", help="every finding, for a machine")
    new = commands.add_parser("new", help="write a plug-in to start from, and its test")
    new.add_argument("kind", choices=("method",))
    new.add_argument("name")
    new.add_argument("--out", metavar="DIR", default=".", help="where to (default: here)")
    board = commands.add_parser("board", help="rebuild boards from scores alone")
    board.add_argument("run", nargs="+", help="a run folder or a scores.parquet")
    board.add_argument("--out", help="where to (default: leaderboards/<experiment>)")
    compare = commands.add_parser("compare", help="one difference: size, interval, p")
    compare.add_argument("a")
    compare.add_argument("b")
    compare.add_argument("--task", help="one board only, such as sentiment-high")
    compare.add_argument("--run", help="a run folder (default: the newest)")
    _runs(compare)
    doctor = commands.add_parser("doctor", help="what this machine can do, what is missing")
    _runs(doctor)
    return top


def _run(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--methods", metavar="A,B", help="names or paths; settings as dpo:beta=0.05")
    add("--tasks", metavar="T", help="such as sentiment or sentiment-high (default: all)")
    add("--config", metavar="FILE", help="an experiment in TOML; flags win over it")
    add("--model", metavar="M", help="folder or hub id (default: the task's own small model)")
    add("--seeds", metavar="N", type=_whole, help="training runs per method (default: 3)")
    add("--processes", metavar="N", type=_whole, help="processes of one training run (default: 1)")
    add("--budget", metavar="B", help="small (default), smoke or paper")
    add("--set", metavar="KEY=VALUE", action="append", help="such as budget.pairs=2000")
    add("--reference-method", metavar="M", help="tested against (default: dpo)")
    add("--judge", metavar="KIND", help="rule (of an embedded world), reward-model or openai")
    add("--judge-model", metavar="M", help="at the end point; or a reward model's folder or hub id")
    add("--max-cost", metavar="X", type=float, help="the most that judging may cost; with --prices")
    add("--prices", metavar="FILE", help="what a million tokens cost: docs/judges.md")
    add("--generation", metavar="B", help="transformers, vllm or openai (default: auto)")
    add("--name", metavar="NAME", help="of the run and its board")
    add("--out", metavar="DIR", help="where the board goes (default: leaderboards/<name>)")
    add("--workers", metavar="N", type=_whole, default=_cores(), help="processes at once")
    add("--plan", action="store_true", help="say what would be done, and do nothing")
    add("--quiet", action="store_true", help="print the board and nothing else")
    add("--verbose", action="store_true", help="also say what begins")
    _runs(command)


def _runs(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--runs", metavar="DIR", default="runs", help="where work is kept (default: runs)"
    )


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
