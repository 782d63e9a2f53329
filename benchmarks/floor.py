"""How near training is to the floor: the products that cannot be avoided, at the machine's speed.

    python -m benchmarks.floor
    python -m benchmarks.floor --precision fp32 --lora 16 --engine tuned,padded

A pair of P prompt, C and R answer tokens needs 6bS + 6hA FLOPs (LoRA: 4bS + 4hA), S = P+C+R+1,
A = C+R, with b parameters in the body and h in the head. The speed is that of square matrix
products of the same precision, made in turn with the steps.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import figures, heats, workload
from benchmarks.contest import Result
from harness.budget import ModelSize
from harness.data.tokens import TokenPair


def pair_flops(pair: TokenPair, size: ModelSize, *, lora: bool) -> int:
    """FLOPs that training on a pair cannot do without; attention scores are left out."""
    answers = len(pair.chosen) + len(pair.rejected)
    # One more: the prompt's last token predicts the first token of both answers.
    body = len(pair.prompt) + answers + 1
    return (4 if lora else 6) * (size.body * body + size.head * answers)


def rates(result: Result, pairs: Sequence[TokenPair], spec: workload.Spec) -> list[float]:
    """Unavoidable FLOPs per second of wall time, of each round."""
    size = ModelSize(result.facts["body"], result.facts["head"])
    costs = [pair_flops(pair, size, lora=spec.lora > 0) for pair in pairs]
    return figures.per_second(result, costs, spec.per_step)


def matrix_rates(matrix: Result) -> list[float]:
    """FLOPs per second of square matrix products, of each round."""
    return [matrix.facts["flops"] * len(each.losses) / each.wall for each in matrix.rounds]


def table(
    results: Sequence[Result], pairs: Sequence[TokenPair], spec: workload.Spec, matrix: Result
) -> str:
    """A row for each contestant that trains."""
    peaks = matrix_rates(matrix)
    lines = ["| | GFLOP/s of the floor | of the matrix speed | pairs/s |", "|---|---|---|---|"]
    for r in results:
        found = rates(r, pairs, spec)
        speed = figures.Spread.of([rate / 1e9 for rate in found])
        share = figures.Spread.of([100 * a / b for a, b in zip(found, peaks, strict=True)])
        pace = figures.pairs_per_second(r, spec.per_step)
        lines.append(f"| {r.name} | {speed:.0f} | {share:.0f} % | {pace:.2f} |")
    best = figures.Spread.of([rate / 1e9 for rate in peaks])
    return "\n".join([*lines, f"| torch.mm | {best:.0f} | 100 % | |"])


def main() -> None:
    """Race the engine and the matrix products and print the table."""
    flags = heats.parser(__doc__).parse_args()
    spec = heats.spec_of(flags)
    names = [*heats.engines(flags), f"matrix/{spec.precision}"]
    (*results, matrix), pairs = heats.run(spec, names, flags)
    print(table(results, pairs, spec, matrix))


if __name__ == "__main__":
    heats.tell(main)
