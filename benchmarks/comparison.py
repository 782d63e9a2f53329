"""A whole comparison, 12 methods with 3 seeds, against the same trainings with TRL one by one.

    python -m benchmarks.comparison
    python -m benchmarks.comparison --steps 64 --runs 3

Ours: what is shared once (engine, reference pass), then the train stage of every cell, gate,
validation and saving included, in one process. TRL: a process for each run, from its start to its
last step: imports, tokenisation, its own reference pass, training; saving is left out. A few are
measured and the rest is extrapolated: the seeds of ours, and all of TRL's runs but `--runs`.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean

from benchmarks import contest, heats, workload
from benchmarks.cells import METHODS

SEEDS = 3


def table(ours: contest.Result, runs: Sequence[contest.Result]) -> str:
    """What was measured, what it comes to, and the ratio, in seconds of wall time."""
    rounds = (ours.warm, *ours.rounds)
    cells = [each.wall / len(each.losses) for each in rounds for _ in each.losses]
    ups, trainings = [run.up for run in runs], [run.warm.wall for run in runs]
    count = SEEDS * len(METHODS)
    mine, theirs = ours.up + count * mean(cells), count * (mean(ups) + mean(trainings))
    return "\n".join([
        f"| | measured | before training | a training | {count} trainings |",
        "|---|---|---|---|---|",
        f"| {ours.name} | {len(cells)} cells | {ours.up:.0f} s, once | {mean(cells):.0f} s "
        f"({min(cells):.0f}..{max(cells):.0f}) | {mine:.0f} s |",
        f"| {runs[0].name} | {len(runs)} runs | {mean(ups):.0f} s, each | {mean(trainings):.0f} s "
        f"({min(trainings):.0f}..{max(trainings):.0f}) | {theirs:.0f} s |",
        f"\n{mine / theirs:.3f} of TRL's time; of the trainings alone, without anything before "
        f"them: {mean(cells) / mean(trainings):.3f}.",
    ])  # fmt: skip


def main() -> None:
    """Measure TRL's runs before and after ours, and print the table."""
    parser = heats.parser(__doc__)
    parser.add_argument("--against", default="1.8.0/best", metavar="R/V")
    parser.add_argument("--runs", type=int, default=2, help="of TRL that are measured")
    parser.set_defaults(engine="shared", steps=16)
    flags = parser.parse_args()
    spec = workload.Spec(
        flags.profile, flags.model, flags.precision, flags.lora, flags.steps,
        micro_tokens=flags.micro_tokens,
    )  # fmt: skip
    peer = f"trl-{flags.against}"
    first = [_race(spec, peer, flags, spec.steps) for _ in range((flags.runs + 1) // 2)]
    ours = _race(spec, f"cells/{flags.engine}", flags, len(METHODS))
    last = [_race(spec, peer, flags, spec.steps) for _ in range(flags.runs // 2)]
    print(f"\n`{heats.called()}`\n")
    print(
        f"{spec.model} Llama, {spec.precision}, {spec.profile} lengths, {spec.steps} steps of "
        f"{spec.per_step} pairs, {flags.threads} threads; EXTRAPOLATED from what was measured.\n"
    )
    print(table(ours, [*first, *last]))


def _race(spec: workload.Spec, name: str, flags: argparse.Namespace, steps: int) -> contest.Result:
    with tempfile.TemporaryDirectory() as place:
        workload.make(spec, Path(place), flags.data, flags.tokenizer)
        (result,) = contest.race(
            [name], Path(place), flags.environments, warm=steps, rounds=0, steps=0,
            threads=flags.threads,
        )  # fmt: skip
    return result


if __name__ == "__main__":
    heats.tell(main)
