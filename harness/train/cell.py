"""One cell's training: one method, its settings and one seed, under the experiment's budget."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from harness.budget import ModelSize
from harness.contracts.method import Method, State
from harness.registry import load_method
from harness.store.stage import Work
from harness.train import device
from harness.train.checkpoint import History
from harness.train.engine import ENGINES
from harness.train.gate import LIMITS, open_gate
from harness.train.ledger import Ledger, payer
from harness.train.live_reference import Follower, frozen
from harness.train.loop import Optimisation, fit
from harness.train.policy import adapt, load_policy, save_policy, without_dropout
from harness.train.run import Run, validate
from harness.train.step import Learner


def train_cell(work: Work) -> Mapping[str, Any]:
    """Stage: a trained policy (or adapter), its history, the gate's findings and the bill.

    Raises:
        DivergedError: a loss or a gradient left the finite numbers.
        GateError: the first step is not what it must be.
    """
    s = work.settings
    device.exactly()
    where = device.device()
    settings, optimisation = _chosen(work)
    method = load_method(s["method"]).narrowed(settings)
    settings = method.resolve(settings)
    model, tokenizer = load_policy(work.inputs["policy"])
    size = measure(model)
    model = without_dropout(adapt(model, s["lora"], s["seed"]).to(where))
    reference, companion = _live(work, method, settings, model)
    learner = Learner(ENGINES[s["engine"]], model, method, settings, s["micro_pairs"], reference)
    run = Run.of(learner, work.inputs, "train", where=where, seed=s["seed"])
    ledger = Ledger.of(run.pairs, size, s)
    pays = payer(method, s.get("reward_epochs", 0))
    steps = ledger.steps(pays)
    with device.precision(where, s["precision"]):
        gate = open_gate(run, steps[0], s["seed"], LIMITS[s["precision"]])
        state, history = fit(
            model, steps, run.objective(), optimisation, scratch=work.scratch,
            checkpoint_steps=s["checkpoint_steps"], report=work.report, state=run.start(),
            companion=companion,
        )  # fmt: skip
        held_out = validate(run.on(work.inputs, "validation"), state)
    save_policy(model, tokenizer, work.out)
    _save_history(work.out, history, state)
    return {
        "pairs": len(steps) * s["pairs_per_step"], "steps": len(steps), "gate": gate,
        "validation": held_out, "clipped": history.clipped, "state": digest(state),
        "loss": {"first": history.losses[0], "last": history.losses[-1]},
        "method_settings": dict(settings), "learning_rate": optimisation.learning_rate,
        "bill": {**asdict(found := ledger.bill(pays, steps)), "total": found.total},
        "reference_moves": len(steps) // companion.every if companion else None,
        **device.facts(where),
    }  # fmt: skip


def measure(model: Any) -> ModelSize:
    """Parameters of body and head that a token is multiplied with; embeddings are looked up."""
    head = model.get_output_embeddings().weight
    looked_up = {m.weight for m in model.modules() if isinstance(m, nn.Embedding)}
    body = sum(p.numel() for p in {*model.parameters()} - looked_up - {head})
    return ModelSize(body=body, head=head.numel(), vocabulary=head.shape[0])


def digest(state: State | None) -> str | None:
    """A short hash of a method's state."""
    if state is None:
        return None
    text = json.dumps({name: _hex(value.tolist()) for name, value in sorted(state.items())})
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _hex(value: Any) -> Any:
    return [_hex(one) for one in value] if isinstance(value, list) else float(value).hex()


def _live(
    work: Work, method: Method, settings: Mapping[str, Any], policy: Any
) -> tuple[Any | None, Follower | None]:
    """A reference model in memory, where the method needs one, and what moves it."""
    if "divergence" not in method.reads and method.moving_reference is None:
        return None, None
    reference = frozen(load_policy(work.inputs["policy"])[0].to(policy.device))
    if method.moving_reference is None:
        return reference, None
    mix, every = (settings[key] for key in method.moving_reference)
    return reference, Follower(policy, reference, mix, every)


def _chosen(work: Work) -> tuple[Mapping[str, Any], Optimisation]:
    """Settings and optimisation: the row's own, or what its trials were won by."""
    settings, optimisation = work.settings["method_settings"], work.settings["optimisation"]
    if "choice" in work.inputs:
        won = json.loads((work.inputs["choice"] / "choice.json").read_text())
        settings = won["settings"]
        optimisation = {**optimisation, "learning_rate": won["learning_rate"]}
    return settings, Optimisation(**optimisation)


def _save_history(folder: Path, history: History, state: State | None) -> None:
    named = {name: value.tolist() for name, value in (state or {}).items()}
    (folder / "history.json").write_text(json.dumps({**vars(history), "state": named}))
