"""What the races share on the command line: flags, the workload they ask for, the headline."""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from benchmarks import contest, environments, workload
from harness.data.tokens import TokenPair
from harness.errors import HarnessError


def parser(description: str | None) -> argparse.ArgumentParser:
    """The flags that the races share."""
    flags = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = flags.add_argument
    add("--profile", choices=workload.PROFILES, default="table", help="lengths of the pairs")
    add("--model", choices=workload.MODELS, default="15m")
    add("--precision", choices=("bf16", "fp32"), default="bf16")
    add("--lora", type=int, default=0, metavar="RANK", help="0 trains all weights")
    add("--micro-tokens", type=int, default=2048, help="ours: budget.micro_tokens")
    add("--engine", default="tuned,shared", metavar="E,..", help="ours: see benchmarks/ours.py")
    add("--rounds", type=int, default=5)
    add("--steps", type=int, default=3, help="of a round")
    add("--warm", type=int, default=2, help="steps before the first round")
    add("--threads", type=int, default=2)
    add("--data", type=Path, help="folder of real texts")
    add("--tokenizer", type=Path, help="for --data")
    add("--environments", type=Path, default=environments.FOLDER, help="where TRL is installed")
    return flags


def spec_of(flags: argparse.Namespace) -> workload.Spec:
    """The workload that the flags ask for."""
    steps = flags.warm + flags.rounds * flags.steps
    # Such that losses move by far more than two sides may differ: equal ones say something then.
    rate = 1e-3 if flags.lora else 1e-5
    return workload.Spec(
        flags.profile, flags.model, flags.precision, flags.lora, steps, learning_rate=rate,
        micro_tokens=flags.micro_tokens,
    )  # fmt: skip


def run(
    spec: workload.Spec, names: Sequence[str], flags: argparse.Namespace
) -> tuple[list[contest.Result], list[TokenPair]]:
    """Race on the workload and print what was raced; gives the pairs, too."""
    with tempfile.TemporaryDirectory() as place:
        pairs = workload.make(spec, Path(place), flags.data, flags.tokenizer)
        results = contest.race(
            names, Path(place), flags.environments, warm=flags.warm, rounds=flags.rounds,
            steps=flags.steps, threads=flags.threads,
        )  # fmt: skip
    print(f"\n`{called()}`\n")
    what = f"LoRA of rank {spec.lora}" if spec.lora else "all weights"
    print(
        f"{spec.model} Llama, {what}, {spec.precision}, {spec.profile} lengths (medians "
        f"{lengths(pairs)}), {spec.per_step} pairs a step, {flags.threads} threads, "
        f"{results[0].facts['device']}; {flags.rounds} rounds of {flags.steps} steps in turn "
        f"after {flags.warm} steps to warm up; median (least..most).\n"
    )
    return results, pairs


def called() -> str:
    """The command that is running."""
    return f"python -m benchmarks.{Path(sys.argv[0]).stem} {shlex.join(sys.argv[1:])}".strip()


def lengths(pairs: Sequence[TokenPair]) -> str:
    """Medians of the tokens of prompts, chosen and rejected answers."""
    sides = ("prompt", "chosen", "rejected")
    return "/".join(f"{median(len(getattr(p, side)) for p in pairs):.0f}" for side in sides)


def engines(flags: argparse.Namespace) -> list[str]:
    """Names of our contestants."""
    return [f"ours/{name}" for name in flags.engine.split(",")]


def tell(main: Callable[[], None]) -> None:
    """Run a command; what a user can meet is one line and no traceback."""
    try:
        main()
    except HarnessError as error:
        raise SystemExit(f"error: {error}") from None
