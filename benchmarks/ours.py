"""A contestant: the harness's own stages, training loop and engine on a workload's folder.

    python -m benchmarks.ours FOLDER ENGINE        (started by the other files of this folder)

ENGINE is `shared`, `padded` or `oracle`, unmeasured, or `tuned`: `shared` with kernels and
compilation as the engine stage measures them.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from benchmarks.turns import Turns
from benchmarks.workload import Spec
from harness.contracts.method import State
from harness.engine.choice import Choice, prepared
from harness.registry import load_method
from harness.store.stage import Work
from harness.train import device
from harness.train.cell import measure
from harness.train.loop import Objective, Optimisation, fit
from harness.train.policy import adapt, load_policy, without_dropout
from harness.train.reference import score_reference
from harness.train.run import Run
from harness.train.step import Learner
from harness.train.tune import choose_engine

TUNED_FOR = 20_000
"""Pairs of the training that compilation is judged for: a real one, not the benchmark's few."""


def main(folder: Path, name: str) -> None:
    """Choose the engine, score the reference, then train by rounds."""
    spec = Spec(**json.loads((folder / "spec.json").read_text()))
    device.exactly()
    where = device.device()
    cuda = torch.cuda.is_available()
    turns = Turns(torch.cuda.max_memory_allocated, torch.cuda.synchronize) if cuda else Turns()
    inputs = {"tokens": folder / "tokens", "policy": folder / "model"}
    model, _ = load_policy(inputs["policy"])
    size = measure(model)
    seconds = {}
    for stage in ("engine", "reference"):
        began = time.perf_counter()
        inputs[stage] = made(stage, folder / name, inputs, settings(spec, name))
        seconds[stage] = time.perf_counter() - began
    choice = Choice.load(inputs["engine"])
    run = _run(spec, model, inputs, where, choice)
    losses: list[float] = []
    rows = range(len(run.pairs))
    with device.precision(where, spec.precision), prepared(run.learner.model, choice):
        turns.ready(
            body=size.body, head=size.head, seconds=seconds, engine=choice.sentence,
            versions={"torch": torch.__version__}, device=device.facts(where)["device"],
        )  # fmt: skip
        fit(
            run.learner.model, [rows[i : i + spec.per_step] for i in rows[:: spec.per_step]],
            _recorded(run.objective(), losses), _optimisation(spec), scratch=folder / name,
            checkpoint_steps=spec.steps + 1, report=lambda *_: turns.step_done(losses[-1]),
            state=run.start(),
        )  # fmt: skip


def settings(spec: Spec, name: str) -> dict[str, Any]:
    """Of the stages before training."""
    measure = {
        "lora": spec.adapters, "epochs": max(1, TUNED_FOR // (spec.steps * spec.per_step)),
        "pairs_per_step": spec.per_step, "micro_pairs": spec.per_step,
        "micro_tokens": spec.micro_tokens, "seed": spec.seed,
    }  # fmt: skip
    return {
        "precision": spec.precision, "engine": "shared" if name == "tuned" else name,
        "measure": measure if name == "tuned" else None, "entropy": False,
    }  # fmt: skip


def made(stage: str, folder: Path, inputs: Mapping[str, Path], settings: Mapping[str, Any]) -> Path:
    """The folder of a stage before training, which is carried out now."""
    out = folder / stage
    out.mkdir(parents=True)
    call = choose_engine if stage == "engine" else score_reference
    call(Work(settings, inputs, out, folder, lambda *_: None))
    return out


def _run(
    spec: Spec, model: Any, inputs: Mapping[str, Path], where: torch.device, choice: Choice
) -> Run:
    method = load_method("dpo")
    model = without_dropout(adapt(model, spec.adapters, spec.seed).to(where))
    learner = Learner(
        choice.engine, model, method, method.resolve({"beta": spec.beta}), spec.per_step,
        micro_tokens=spec.micro_tokens,
    )  # fmt: skip
    return Run.of(learner, inputs, "train", where=where, seed=spec.seed)


def _optimisation(spec: Spec) -> Optimisation:
    return Optimisation(
        spec.learning_rate, schedule="constant", warmup=0.0, weight_decay=0.0, clip=spec.clip
    )


def _recorded(objective: Objective, losses: list[float]) -> Objective:
    def recorded(step: int, rows: Any, state: State | None) -> tuple[float, State | None]:
        loss, after = objective(step, rows, state)
        losses.append(loss)
        return loss, after

    return recorded


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
