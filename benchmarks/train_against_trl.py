"""Training against TRL: the same weights, pairs, order and optimizer, in turn in one run.

    python -m benchmarks.train_against_trl
    python -m benchmarks.train_against_trl --against 1.16.0/defaults,1.16.0/best
    python -m benchmarks.train_against_trl --profile tldr --precision fp32 --lora 16

Prints a table in markdown. The first call makes an environment for each release of TRL. Two TRL
trainers that are alive at the same time want 10 GB.
"""

from __future__ import annotations

from benchmarks import figures, heats


def main() -> None:
    """Race ours against TRL and print the table."""
    parser = heats.parser(__doc__)
    parser.add_argument(
        "--against", default="1.8.0/best", metavar="R/V,..",
        help="TRL releases and variants: see benchmarks/peer_trl.py",
    )  # fmt: skip
    flags = parser.parse_args()
    peers = [f"trl-{name}" for name in flags.against.split(",")]
    spec = heats.spec_of(flags)
    results, _ = heats.run(spec, [*heats.engines(flags), *peers], flags)
    base = figures.fastest([r for r in results if r.name in peers])
    apart = figures.check_losses(results, spec.precision)
    print(figures.table(results, spec.per_step, base))
    print(
        f"\nSpeed and memory are relative to {base.name}. Losses are at most {apart:.2g} nats "
        f"apart, of {min(base.losses):.4f} to {max(base.losses):.4f}."
    )
    for result in results:
        if "engine" in result.facts:
            print(f"{result.name}: {result.facts['engine']}.")
    versions = ", ".join(f"{k} {v}" for k, v in base.facts["versions"].items())
    print(f"{base.name}: {versions}; ours: torch {results[0].facts['versions']['torch']}.")


if __name__ == "__main__":
    heats.tell(main)
