"""The command line: parse, call one function, print."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from harness.errors import HarnessError, RequestError, unknown
from harness.visible import visible_lines

COMMANDS = {
    "run": "run:run", "judge": "judge:judge", "list": "plugins:listing", "show": "show:show",
    "check": "check:check", "new": "new:new", "board": "boards:rebuild",
    "compare": "boards:compare", "export": "export:export", "doctor": "doctor:doctor",
}  # fmt: skip
"""Each command's function, as module and name in `harness.commands`."""


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
        # It may quote a server or a file.
        print(f"harness: {visible_lines(str(error))}", file=sys.stderr)
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
    module, _, function = COMMANDS[args.command].partition(":")
    return int(getattr(import_module(f"harness.commands.{module}"), function)(args))


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
    _judge(commands.add_parser("judge", help="judge given answers, or hold a judge to people's"))
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
    export = commands.add_parser("export", help="a run's answers and verdicts, for other tools")
    export.add_argument("run", help="a run folder, such as runs/<name>")
    export.add_argument("--out", metavar="DIR", help="where to (default: <run>/outputs)")
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
    add("--also-lm-eval", metavar="TASKS", help="of lm-evaluation-harness, as secondary columns")
    add("--plan", action="store_true", help="say what would be done, and do nothing")
    add("--quiet", action="store_true", help="print the board and nothing else")
    add("--verbose", action="store_true", help="also say what begins")
    _runs(command)


def _judge(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("outputs", nargs="*", metavar="OUTPUTS", help="answers, in AlpacaEval's form")
    add("--baseline", metavar="OUTPUTS", help="the answers that they are compared with")
    add("--against", metavar="DATA", help="pairs that people compared: does it agree?")
    add("--instructions", metavar="FILE", help="what the idx of a row without instruction means")
    add("--common", action="store_true", help="leave out prompts that one side did not answer")
    add("--limit", metavar="N", type=_whole, help="only the first N prompts (or pairs)")
    add("--judge", metavar="KIND", help="rule, reward-model or openai (default: openai)")
    add("--judge-model", metavar="M", help="name at the end point, or folder of a reward model")
    add("--template", metavar="T", help="how a model is asked: a name or a TOML file")
    add("--task", metavar="T", help="whose rule or template is used (default: none)")
    add("--prices", metavar="FILE", help="prices of tokens, TOML")
    add("--max-cost", metavar="X", type=_amount, help="stop before calls cost more")
    add("--set", metavar="KEY=VALUE", action="append", help="such as judge.concurrency=32")
    add("--out", metavar="DIR", help="where annotations and figures go (default: nowhere)")
    add("--quiet", action="store_true", help="print the figures and nothing else")
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


def _amount(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    sys.exit(main())
