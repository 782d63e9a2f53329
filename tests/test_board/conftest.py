"""Scores with known effects, and the board that is made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from harness.contracts.task import Metric
from harness.scores import Header, Run, Scores, TaskHeader

METRICS = (
    Metric("reward", "reward", "higher", "Sentiment of what is said, from -3 to 3."),
    Metric("kl", "nats", None, "Divergence from the reference policy, per sequence."),
    Metric("length", "tokens", None, "Tokens of an answer."),
    Metric("distinct", "", "higher", "Share of word pairs that occur once."),
)
EFFECTS = {"reference": -0.8, "dpo": 0.5, "madpo": 0.52, "alphadpo": 0.9, "simpo": 0.2}
DONE = Run("", "", "default", 0, "done", "", 1024, 64, 123_456, 1_230_000_000_000)


@pytest.fixture
def make() -> Callable[..., Scores]:
    return make_scores


def make_scores(
    effects: Mapping[str, float] = EFFECTS,
    *,
    seeds: int = 3,
    prompts: int = 200,
    tasks: Sequence[str] = ("sentiment-high",),
    metrics: Sequence[Metric] = METRICS,
    base: str = "reference",
    base_seeds: int = 1,
    runs: Sequence[Run] = (),
    **header: object,
) -> Scores:
    """Normal scores around `effects`; each of `runs` stands for one that went wrong."""
    wrong = {(r.task, r.method, r.seed): r for r in runs}
    frames, known = [], []
    for number, task in enumerate(tasks):
        rng = np.random.default_rng(number)
        difficulty = rng.normal(0, 0.6, prompts)
        for method, effect in effects.items():
            for seed in range(base_seeds if method == base else seeds):
                shift = 0.0 if method == base else rng.normal(0, 0.05)
                values = effect + shift + difficulty + rng.normal(0, 0.5, prompts)
                run = replace(DONE, task=task, method=method, seed=seed)
                run = wrong.get((task, method, seed), run)
                known += [run] if method != base else []
                for metric in metrics:
                    column = _column(metric, values, rng)
                    frames += [_frame(run, metric, column)] if run.status == "done" else []
    headers = tuple(TaskHeader(t, metrics[0].name, tuple(metrics), prompts) for t in tasks)
    return Scores(_header(headers, known, base, **header), pd.concat(frames, ignore_index=True))


def _header(
    tasks: tuple[TaskHeader, ...], runs: Sequence[Run], base: str, **changed: object
) -> Header:
    header = Header(
        experiment="example",
        command="harness run --methods dpo,madpo,alphadpo,simpo --tasks sentiment",
        reference_method="dpo",
        base=base,
        tasks=tasks,
        runs=tuple(runs),
        budget={"pairs": 1024, "epochs": 2, "lora": {"rank": 0}, "learning_rate": 1e-3},
        versions={"torch": "2.13.0", "harness": "0.1.0"},
    )
    return replace(header, **changed)


def _column(metric: Metric, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if metric.name == "kl":
        return np.abs(values.mean() + 0.8) * 6 + rng.normal(0, 2, values.size)
    if metric.name == "length":
        return rng.poisson(24 + 4 * values.mean(), values.size).astype(float)
    return rng.beta(20, 5, values.size) if metric.name == "distinct" else values


def _frame(run: Run, metric: Metric, values: np.ndarray) -> pd.DataFrame:
    prompts = [f"p{i:04d}" for i in range(values.size)]
    names = {"task": run.task, "metric": metric.name, "method": run.method}
    own = {"settings": run.settings, "seed": run.seed, "prompt_id": prompts, "value": values}
    return pd.DataFrame({**names, **own, "unit": metric.unit})
