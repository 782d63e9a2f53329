"""`harness run`: from an experiment to its boards."""

from __future__ import annotations

import shlex
import signal
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.commands.outlook import Outlook
from harness.commands.progress import Reporter, duration
from harness.config import Experiment, make_experiment, read_assignment, read_file
from harness.errors import RequestError
from harness.execute.events import Outcome
from harness.registry import found


def run(args: Namespace) -> int:
    """Train, generate, judge, score, compare; print the board. Returns the exit status."""
    with _interrupts_end_at_once():
        experiment = read(args)
        from harness.files import check_writable
        from harness.gather import name
        from harness.pipeline.plan import plan
        from harness.store.store import Store

        laid_out = plan(experiment)
        folder = Path(args.runs) / name(laid_out)
        out = Path(args.out) if args.out else Path("leaderboards") / folder.name
        work = Outlook.of(laid_out, Store(Path(args.runs).absolute() / "store"), args.workers)
    if args.plan:
        work.show()
        return 0
    store = Store.open(work.store.root)
    check_writable(folder)
    check_writable(out)
    if not args.quiet:
        _announce(laid_out, work, args.workers)
    reporter = Reporter(work.seconds, verbose=args.verbose)
    outcomes = _carry_out(laid_out, store, args, reporter)
    return _finish(laid_out, store, outcomes, folder, out, quiet=args.quiet)


@contextmanager
def _interrupts_end_at_once() -> Iterator[None]:
    """While libraries are imported a Ctrl-C ends the process: some swallow the exception."""
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def read(args: Namespace) -> Experiment:
    """The experiment that the flags ask for: a file first, flags over it, `--set` over all.

    Raises:
        RequestError: something in it means nothing.
    """
    keys: dict[str, Any] = read_file(Path(args.config)) if args.config else {}
    if args.config and "name" not in keys:
        keys["name"] = Path(args.config).stem
    flags = {
        "methods": args.methods, "tasks": args.tasks, "model": args.model, "seeds": args.seeds,
        "processes": args.processes, "name": args.name, "reference_method": args.reference_method,
        "budget.preset": args.budget, "judge.kind": args.judge, "judge.model": args.judge_model,
        "judge.max_cost": args.max_cost, "judge.prices": args.prices,
        "generation.backend": args.generation, "also_lm_eval": args.also_lm_eval,
    }  # fmt: skip
    keys |= {key: value for key, value in flags.items() if value is not None}
    keys |= dict(read_assignment(text) for text in args.set or [])
    if args.workers < 1:
        raise RequestError(f"--workers must be at least 1, not {args.workers}")
    return make_experiment(keys, known_tasks=found("tasks"), plugin_name=_plugin_name)


def _plugin_name(text: str) -> str:
    return Path(text).stem if text.endswith(".py") else text


def _carry_out(plan: Any, store: Any, args: Namespace, reporter: Reporter) -> dict[str, Outcome]:
    from harness.execute.here import carry_out

    try:
        return carry_out(
            plan.ends, store, workers=args.workers,
            listen=(lambda event: None) if args.quiet else reporter,
        )  # fmt: skip
    finally:
        reporter.close()


def _finish(
    plan: Any, store: Any, outcomes: Mapping[str, Outcome], folder: Path, out: Path, *, quiet: bool
) -> int:
    from harness.board.compute import build
    from harness.board.files import write
    from harness.board.screen import show
    from harness.gather import gather, write_costs
    from harness.scores import write_scores

    stages = {stage.key: stage for stage in plan.stages}
    reasons = {key: _root(stages[key], outcomes) for key in outcomes}
    scores = gather(plan, store, reasons, command(sys.argv[1:]))
    write_scores(folder / "scores.parquet", scores)
    write_costs(folder / "costs.csv", plan.stages, store)
    board = build(scores)
    write(board, out)
    show(board)
    if not quiet:
        print(f"\nBoard: {out}/index.html   Scores: {folder}/scores.parquet", file=sys.stderr)
    bad = [run for run in scores.header.runs if run.status != "done"]
    for line, count in Counter(f"{run.status}: {run.reason}" for run in bad).items():
        print(f"{count} cell{'s' * (count > 1)} {line}", file=sys.stderr)
    return 1 if bad else 0


def command(arguments: Sequence[str]) -> str:
    """The command that gives the same numbers again: without what only changes how it is shown."""
    kept, shown = [], iter(arguments)
    for argument in shown:
        if argument == "--workers":
            next(shown, None)
        elif argument not in ("--quiet", "--verbose") and not argument.startswith("--workers="):
            kept.append(argument)
    return "harness " + shlex.join(kept)


def _root(stage: Any, outcomes: Mapping[str, Outcome]) -> str:
    """Why a stage has no result, in the words of the stage that it was the first to fail for."""
    outcome = outcomes[stage.key]
    if outcome.status != "skipped":
        return outcome.reason
    cause = next(s for s in stage.inputs.values() if not outcomes[s.key].usable)
    reason = _root(cause, outcomes)
    told = reason.startswith(cause.label) or outcomes[cause.key].status == "skipped"
    return reason if told else f"{cause.label}: {reason}"


def _announce(plan: Any, work: Outlook, workers: int) -> None:
    x = plan.experiment
    rows = ", ".join(f"{row.method.name} {row.label}".strip() for row in plan.rows)
    boards = ", ".join(board.name for board in plan.boards)
    print(f"Methods: {rows} (each tested against {x.reference_method})", file=sys.stderr)
    print(f"Boards:  {boards}; {x.seeds} seeds, budget '{x.preset}'", file=sys.stderr)
    print(f"Writes:  {plan.writes}", file=sys.stderr)
    if work.seconds:
        text = f"{len(work.seconds)} of {len(work.stages)} stages, about {duration(work.wall)}"
        print(f"Work:    {text} on {workers} workers", file=sys.stderr)
    else:
        print(f"Work:    none, all {len(work.stages)} stages are there", file=sys.stderr)
