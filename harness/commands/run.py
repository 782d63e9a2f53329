"""`harness run`: from an experiment to its boards."""

from __future__ import annotations

import shlex
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.commands.progress import Reporter, duration
from harness.config import Experiment, make_experiment, read_assignment, read_file
from harness.errors import RequestError
from harness.execute.events import Outcome
from harness.registry import found


def run(args: Namespace) -> int:
    """Train, generate, judge, score, compare; print the board. Returns the exit status."""
    experiment = read(args)
    from harness.estimate import START_SECONDS, WORKER_BYTES, Scale, expected
    from harness.execute.plan import finished, hopeless, outstanding
    from harness.gather import name
    from harness.pipeline.plan import plan
    from harness.store.store import Store

    laid_out = plan(experiment)
    scale = Scale.of(laid_out)
    stages = {stage.key: stage for stage in laid_out.stages}
    store = Store(Path(args.runs).absolute() / "store")
    ended = finished(stages, store)
    todo = outstanding([c.score for c in laid_out.cells], ended) - hopeless(stages, ended)
    b = experiment.budget
    costs = {
        key: expected(stages[key], scale, pairs=b.pairs, prompts=b.test_prompts) for key in todo
    }
    seconds = sum(cost.seconds for cost in costs.values()) / args.workers
    if todo:
        seconds += START_SECONDS
    if args.plan:
        flops = sum(cost.flops for cost in costs.values())
        memory = args.workers * (WORKER_BYTES + 24 * scale.parameters)
        _print_plan(stages, todo, {key: cost.seconds for key, cost in costs.items()})
        time = duration(seconds) if todo else "no time"
        print(
            f"\n{len(todo)} of {len(stages)} stages to make: about {time} on {args.workers} "
            f"workers, {flops:.1e} FLOPs, {memory / 2**30:.1f} GiB of memory; "
            f"no judge is paid. Nothing was done."
        )
        return 0
    store = Store.open(store.root)
    if not args.quiet:
        _announce(laid_out, len(todo), len(stages), seconds, args.workers)
    reporter = Reporter(
        {key: cost.seconds for key, cost in costs.items()}, verbose=args.verbose
    )  # fmt: skip
    outcomes = _carry_out(laid_out, store, args, reporter)
    return _finish(laid_out, store, outcomes, Path(args.runs) / name(laid_out), args)


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
        "name": args.name, "reference_method": args.reference_method, "budget.preset": args.budget,
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
            [cell.score for cell in plan.cells], store, workers=args.workers,
            listen=(lambda event: None) if args.quiet else reporter,
        )  # fmt: skip
    finally:
        reporter.close()


def _finish(
    plan: Any, store: Any, outcomes: Mapping[str, Outcome], folder: Path, args: Namespace
) -> int:
    from harness.board.compute import build
    from harness.board.files import write
    from harness.board.screen import show
    from harness.gather import costs, gather
    from harness.scores import write_scores

    stages = {stage.key: stage for stage in plan.stages}
    reasons = {key: _root(stages[key], outcomes) for key in outcomes}
    scores = gather(plan, store, reasons, "harness " + shlex.join(sys.argv[1:]))
    folder.mkdir(parents=True, exist_ok=True)
    write_scores(folder / "scores.parquet", scores)
    costs(plan.stages, store).to_csv(folder / "costs.csv", index=False)
    out = Path(args.out) if args.out else Path("leaderboards") / folder.name
    board = build(scores)
    write(board, out)
    show(board)
    if not args.quiet:
        print(f"\nBoard: {out}/index.html   Scores: {folder}/scores.parquet", file=sys.stderr)
    bad = [run for run in scores.header.runs if run.status != "done"]
    for line, count in Counter(f"{run.status}: {run.reason}" for run in bad).items():
        print(f"{count} cell{'s' * (count > 1)} {line}", file=sys.stderr)
    return 1 if bad else 0


def _root(stage: Any, outcomes: Mapping[str, Outcome]) -> str:
    """Why a stage has no result, in the words of the stage that it was the first to fail for."""
    outcome = outcomes[stage.key]
    if outcome.status != "skipped":
        return outcome.reason
    cause = next(s for s in stage.inputs.values() if not outcomes[s.key].usable)
    reason = _root(cause, outcomes)
    told = reason.startswith(cause.label) or outcomes[cause.key].status == "skipped"
    return reason if told else f"{cause.label}: {reason}"


def _announce(plan: Any, todo: int, stages: int, seconds: float, workers: int) -> None:
    x = plan.experiment
    rows = ", ".join(f"{row.method.name} {row.label}".strip() for row in plan.rows)
    boards = ", ".join(board.name for board in plan.boards)
    print(f"Methods: {rows} (each tested against {x.reference_method})", file=sys.stderr)
    print(f"Boards:  {boards}; {x.seeds} seeds, budget '{x.preset}'", file=sys.stderr)
    if todo:
        print(
            f"Work:    {todo} of {stages} stages, about {duration(seconds)} on {workers} workers",
            file=sys.stderr,
        )
    else:
        print(f"Work:    none, all {stages} stages are there", file=sys.stderr)


def _print_plan(stages: Mapping[str, Any], todo: set[str], seconds: Mapping[str, float]) -> None:
    for key, stage in stages.items():
        state = f"about {seconds[key]:.0f} s" if key in todo else "cached"
        print(f"{state:>12}  {stage.verb:<13} {stage.label}")
