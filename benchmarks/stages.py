"""Where the time of a run goes, from the manifests that it left: the constants of `estimate.py`.

    harness run --methods dpo --tasks sentiment-high --name bench
    python benchmarks/stages.py runs

Seconds are of this machine under whatever else it did; read rates and shares, not seconds.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path


def main(runs: str) -> None:
    """Print seconds by kind of stage, and what a training step and a FLOP cost."""
    manifests = [
        json.loads(path.read_text())
        for path in sorted(Path(runs).glob("store/stages/*/*/manifest.json"))
    ]
    seconds: dict[str, list[float]] = defaultdict(list)
    for manifest in manifests:
        seconds[manifest["verb"]].append(manifest["seconds"])
    total = sum(map(sum, seconds.values()))
    print(f"{'stage':<14}{'times':>6}{'seconds':>10}{'mean':>8}{'share':>8}")
    for verb, values in sorted(seconds.items(), key=lambda item: -sum(item[1])):
        mean, share = sum(values) / len(values), sum(values) / total
        print(f"{verb:<14}{len(values):>6}{sum(values):>10.1f}{mean:>8.2f}{share:>8.0%}")
    trained = [m for m in manifests if m["verb"] == "train" and m["status"] == "done"]
    if trained:
        flops = sum(m["facts"]["bill"]["training"] for m in trained)
        spent = sum(m["seconds"] for m in trained)
        steps = sum(m["facts"]["steps"] for m in trained)
        print(f"training: {flops / spent:.2e} FLOPs/s, {1000 * spent / steps:.0f} ms a step")


if __name__ == "__main__":
    main(*sys.argv[1:])
