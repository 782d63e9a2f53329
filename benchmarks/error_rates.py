"""Measures how often the tests of `harness.stats` are wrong, on scores whose truth is known.

    python -m benchmarks.error_rates [--quick] [--others] [--repeats 2000] [--processes 2]

Prints Markdown tables, those of `docs/statistics.md`.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import fields
from multiprocessing import get_context

import numpy as np
from scipy import stats

from benchmarks.null_boards import LEVEL, Kind, Rates, World, measured
from harness.stats.bootstrap import hierarchical_interval
from harness.stats.difference import difference

MORE = 4  # times as many boards where they hold one pair only
DRAWS = 600  # of each bootstrap
Grid = tuple[tuple[Kind, ...], tuple[int, ...], tuple[int, ...], tuple[int, ...], tuple[float, ...]]
QUICK: Grid = (("even", "wins"), (2, 12), (200,), (3, 5), (0.5, 2.0))
FULL: Grid = (("even", "wins"), (2, 4, 12), (200, 805), (3, 5, 10), (0.5, 1.0, 2.0))
SHAPES: Grid = (("noisy", "clumped"), (2, 12), (200,), (3, 5), (0.5, 2.0))


def worlds(*, quick: bool) -> Iterator[World]:
    """Kinds, methods, prompts, seeds and seed sds, each with each; and rows that are not alike."""
    for grid in (QUICK,) if quick else (FULL, SHAPES):
        kinds, methods, prompts, seeds, sds = grid
        for kind, k, n, s, sd in itertools.product(kinds, methods, prompts, seeds, sds):
            yield World(kind, k, s, n, sd)
    if not quick:
        for s, n in itertools.product((3, 5), (200, 805)):
            yield World("even", 12, s, n, 2.0, uneven=True)


def _row(world: World, rates: Rates) -> str:
    name = f"{world.kind}{', one uneven' if world.uneven else ''}"
    cells = [name, world.methods, world.seeds, world.prompts, f"{world.seed_sd:g}"]
    numbers = [f"{getattr(rates, field.name):.1f}" for field in fields(rates)]
    return "| " + " | ".join([*map(str, cells), *numbers]) + " |"


HEAD = (
    "| values | methods | seeds | prompts | seed sd | pair alone | pair on board | Holm, any | "
    "BH, any | either | mean held | power alone | power on board | MDE on board |\n" + "|---" * 14
)


def _job(job: tuple[World, int, int]) -> tuple[World, Rates]:
    world, repeats, seed = job
    return world, measured(world, repeats, seed)


def other_tests(world: World, repeats: int, seed: int) -> tuple[float, ...]:
    """False positives in per cent of what others do with two methods' scores, and of ours."""
    rng = np.random.default_rng([seed, *map(ord, repr(world))])
    found = []
    for _ in range(repeats):
        a, b = world.draw(rng)
        drawn = hierarchical_interval(a - b, rng, draws=DRAWS)
        own = difference(a, b).p
        found.append(
            (
                stats.ttest_1samp((a - b).mean(axis=0), 0.0).pvalue < LEVEL,
                stats.ttest_ind(a.mean(axis=1), b.mean(axis=1), equal_var=False).pvalue < LEVEL,
                drawn.low > 0 or drawn.high < 0,
                own is not None and own < LEVEL,
            )
        )
    return tuple(float(rate) for rate in 100 * np.array(found, dtype=float).mean(axis=0))


def _others(repeats: int, seed: int) -> None:
    print("| seeds | prompts | seed sd | prompts only, t | seeds only, Welch | bootstrap | ours |")
    print("|---" * 7 + "|", flush=True)
    for s, n, sd in itertools.product((3, 5, 10), (200, 805), (0.5, 1.0, 2.0)):
        rates = other_tests(World("even", 2, s, n, sd), repeats, seed)
        print(f"| {s} | {n} | {sd:g} | " + " | ".join(f"{r:.1f}" for r in rates) + " |", flush=True)


def _summary(found: Sequence[tuple[World, Rates]]) -> str:
    """The least and the most of each rate, over all worlds of so many methods and seeds."""
    names = [field.name for field in fields(Rates)][:-1]
    lines = ["", "| methods | seeds | " + " | ".join(names) + " |", "|---" * 10 + "|"]
    even = [(world, rates) for world, rates in found if not world.uneven]
    for k, s in sorted({(world.methods, world.seeds) for world, _ in even}):
        here = [rates for world, rates in even if (world.methods, world.seeds) == (k, s)]
        ends = [sorted(getattr(rates, name) for rates in here) for name in names]
        lines.append(f"| {k} | {s} | " + " | ".join(f"{e[0]:.1f}-{e[-1]:.1f}" for e in ends) + " |")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true", help="a corner of the grid")
    parser.add_argument("--others", action="store_true", help="what other tests would have said")
    parser.add_argument("--repeats", type=int, default=None, help="boards of each world")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args(arguments)
    repeats = chosen.repeats or (400 if chosen.quick else 2000)
    if chosen.others:
        _others(repeats, chosen.seed)
        return
    jobs = [
        (world, repeats * (MORE if world.methods == 2 else 1), chosen.seed)
        for world in worlds(quick=chosen.quick)
    ]
    print(f"{HEAD}|", flush=True)
    found = []
    with ProcessPoolExecutor(chosen.processes, mp_context=get_context("spawn")) as pool:
        for world, rates in pool.map(_job, jobs):
            found.append((world, rates))
            print(_row(world, rates), flush=True)
    print(_summary(found))


if __name__ == "__main__":
    main(sys.argv[1:])
