"""What judging costs beside the judge: 805 prompts in both orders, a server that takes 100 ms.

`python -m benchmarks.judging [--json FILE]`. The server is a process of its own. Ideal is a client
that takes no time: calls / calls at once, rounded up, times the server's time. Overhead is this
process's own time per call; the memory figures are its resident set.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from harness.backends import JudgeSettings
from harness.contracts.task import Contest
from harness.judge.both_orders import Match, both_orders
from harness.judge.judges import open_judge

PROMPTS = 805
AT_ONCE = 64
LATENCY = 0.1
ROOT = Path(__file__).parents[1]


@contextmanager
def served(latency: float) -> Iterator[str]:
    """The address of a judge that takes so many seconds for a call, in a process of its own."""
    command = [sys.executable, "-m", "tests.judge_server", "--latency", str(latency)]
    server = subprocess.Popen(
        command, cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        yield (server.stdout.readline() if server.stdout else "").strip()
    finally:
        server.communicate("")


def matches(count: int, characters: int) -> list[Match]:
    """Different answers of so many characters to different prompts."""
    text = "a word and another " * (characters // 19)
    return [
        Match(f"p{row}", 0, 1.0, f"Instruction {row}", f"{row} {text}", f"{text} {row}")
        for row in range(count)
    ]


def judged(url: str, folder: Path, some: list[Match]) -> dict[str, Any]:
    """Seconds, own seconds and memory of judging some matches."""
    settings = JudgeSettings(kind="openai", model="judge", base_url=url, concurrency=AT_ONCE)
    memory: list[int] = []
    process = psutil.Process()

    def told(done: int, total: int) -> None:
        if done % 100 == 0:
            memory.append(process.memory_info().rss)

    with open_judge(settings, Contest("answer-token"), folder, told) as opened:
        start, own = time.perf_counter(), time.process_time()
        found = both_orders(opened.judge, some)
        seconds, own = time.perf_counter() - start, time.process_time() - own
    assert all(verdict.preference is not None for verdict in found.verdicts)
    return {"seconds": seconds, "own_seconds": own, "memory": memory}


def measure(characters: int) -> dict[str, Any]:
    """The figures for answers of so many characters."""
    with served(LATENCY) as url, tempfile.TemporaryDirectory() as folder:
        judged(url, Path(folder) / "warm", matches(AT_ONCE, characters))
        some = matches(PROMPTS, characters)
        first = judged(url, Path(folder), some)
        cached = judged(url, Path(folder), some[:500])
        many = judged(url, Path(folder), matches(4 * PROMPTS, characters)[PROMPTS:])
    calls = 2 * PROMPTS
    ideal = -(-calls // AT_ONCE) * LATENCY
    return {
        "characters": characters, "calls": calls, "seconds": first["seconds"], "ideal": ideal,
        "ratio": first["seconds"] / ideal, "own_ms_per_call": 1e3 * first["own_seconds"] / calls,
        "cached_1000_seconds": cached["seconds"],
        "memory_mb": [round(kb / 2**20, 1) for kb in first["memory"][:1] + first["memory"][-1:]],
        "memory_mb_4830_more": [round(kb / 2**20, 1) for kb in many["memory"][-1:]],
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
    }  # fmt: skip


def main() -> None:
    """Print the figures, and write them where a file is named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    figures = [measure(characters) for characters in (200, 2000)]
    print(json.dumps(figures, indent=1))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1))


if __name__ == "__main__":
    main()
