"""What a run is about to do: which stages, for how long, with how much memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.commands.progress import duration


@dataclass(frozen=True)
class Outlook:
    """The stages of a plan against what a store has.

    Attributes:
        stages: all of them, by key.
        seconds: expected seconds on one worker of those that are to be made, by key.
        wall: expected seconds until all are made.
        judging: what a judge is paid for, in words.
    """

    store: Any
    stages: Mapping[str, Any]
    seconds: Mapping[str, float]
    wall: float
    flops: float
    memory: float
    workers: int
    judging: str

    @classmethod
    def of(cls, plan: Any, store: Any, workers: int) -> Outlook:
        """Look at the store; nothing is written."""
        from harness.estimate import (
            PARENT_BYTES,
            START_SECONDS,
            WORKER_BYTES,
            Scale,
            expected,
        )
        from harness.execute.plan import finished, hopeless, outstanding

        stages = {stage.key: stage for stage in plan.stages}
        ended = finished(stages, store)
        wanted = outstanding(plan.ends, ended) - hopeless(stages, ended)
        scale, b = Scale.of(plan), plan.experiment.budget
        costs = {
            key: expected(stage, scale, pairs=b.pairs, prompts=b.test_prompts)
            for key, stage in stages.items()
            if key in wanted
        }
        seconds = {key: cost.seconds for key, cost in costs.items()}
        return cls(
            store, stages, seconds,
            wall=sum(seconds.values()) / workers + START_SECONDS * bool(seconds),
            flops=sum(cost.flops for cost in costs.values()),
            memory=PARENT_BYTES + workers * (WORKER_BYTES + 24 * scale.parameters),
            workers=workers, judging=_judging(plan, [stages[key] for key in costs]),
        )  # fmt: skip

    def show(self) -> None:
        """Print every stage and the sum."""
        for key, stage in self.stages.items():
            state = f"about {self.seconds[key]:.0f} s" if key in self.seconds else "cached"
            print(f"{state:>12}  {stage.verb:<13} {stage.label}")
        time = duration(self.wall) if self.seconds else "no time"
        print(
            f"\n{len(self.seconds)} of {len(self.stages)} stages to make: about {time} on "
            f"{self.workers} workers, {self.flops:.1e} FLOPs, {self.memory / 2**30:.1f} GiB of "
            f"memory; {self.judging}. Nothing was done."
        )


def _judging(plan: Any, stages: Sequence[Any]) -> str:
    """How often a judge will be asked at most, and what that may cost where prices are given."""
    from harness.estimate import call_tokens, calls
    from harness.judge.asking.prices import load_price

    judge, prompts = plan.experiment.judge, plan.experiment.budget.test_prompts
    asked = {stage.key: n for stage in stages if (n := calls(stage, prompts))}
    if not asked:
        return "no judge is paid"
    count = f"at most {sum(asked.values()):,} calls of {judge.model}"
    if judge.prices is None:
        return f"{count} (judge.prices would say what they cost)"
    price = load_price(judge.prices, judge.model)
    cost = sum(
        asked[stage.key] * price.of(*call_tokens(stage, plan))
        for stage in stages if stage.key in asked
    )  # fmt: skip
    limit = f", stopped at {judge.max_cost:g}" if judge.max_cost is not None else ""
    return f"{count}, about {cost:.2f} {price.currency}{limit}"
