"""One cell's training: one method, its settings and one seed, under the experiment's budget."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from harness.budget import Budget, ModelSize
from harness.contracts.method import Method, State
from harness.data.token_store import load_pairs, token_counts
from harness.engine.choice import Choice, chosen, longest, prepared
from harness.engine.measure import fitted, free_bytes
from harness.registry import load_method
from harness.store.stage import Work
from harness.train import device
from harness.train.checkpoint import History
from harness.train.gate import LIMITS, open_gate
from harness.train.ledger import Ledger, payer
from harness.train.live_reference import Follower, check_followable, frozen
from harness.train.loop import Optimisation, fit
from harness.train.parts import alone
from harness.train.policy import adapt, save_policy, without_dropout
from harness.train.processes import in_processes
from harness.train.reference import SPLITS
from harness.train.resident import RESIDENCE, Base
from harness.train.run import Run, validate
from harness.train.step import Learner
from harness.train.team import Team


def train_cell(work: Work) -> Mapping[str, Any]:
    """Stage: a trained policy (or adapter), its history, the gate's findings and the bill.

    Raises:
        DivergedError: a loss or a gradient left the finite numbers.
        GateError: the first step is not what it must be.
        RequestError: the reference cannot follow a policy with such adapters.
        HarnessError: one of several processes died.
    """
    return in_processes(_begin, work, work.settings.get("processes", 1))


def _begin(work: Work, team: Team) -> Mapping[str, Any]:
    device.exactly()
    with RESIDENCE.borrowed(work.inputs["policy"], device.device()) as base:
        return _train(work, team, base)


def _train(work: Work, team: Team, base: Base) -> Mapping[str, Any]:
    """The cell in one process of a team: all do the same, one writes."""
    s, where = work.settings, device.device()
    settings, optimisation = _chosen(work)
    method = load_method(s["method"]).narrowed(settings)
    settings = method.resolve(settings)
    model = base.shared() if s["lora"] else base.own()
    size = measure(model)
    model = without_dropout(adapt(model, s["lora"], s["seed"]).to(where))
    reference, companion = _live(base, method, settings, model)
    choice = _choice(work, model)
    learner = Learner(
        choice.engine, model, method, settings, s["micro_pairs"], reference,
        s.get("micro_tokens", Budget.micro_tokens), team,
    )  # fmt: skip
    run = Run.of(learner, work.inputs, "train", where=where, seed=s["seed"])
    ledger = Ledger.of(run.pairs, size, s)
    pays = payer(method, s.get("reward_epochs", 0))
    steps = ledger.steps(pays)
    with device.precision(where, s["precision"]), prepared(model, choice):
        gate = open_gate(run, steps[0], s["seed"], LIMITS[s["precision"]])
        state, history = fit(
            model, steps, run.objective(), optimisation, scratch=work.scratch,
            checkpoint_steps=s["checkpoint_steps"], report=work.report, state=run.start(),
            companion=companion, leads=team.leads,
        )  # fmt: skip
        held_out = validate(run.on(work.inputs, "validation"), state)
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    team.check_alike({**trained, **(state or {})})
    if team.leads:
        save_policy(model, base.tokenizer, work.out)
        _save_history(work.out, history, state)
    return {
        "pairs": len(steps) * s["pairs_per_step"], "steps": len(steps), "gate": gate,
        "validation": held_out, "clipped": history.clipped, "state": digest(state),
        "loss": {"first": history.losses[0], "last": history.losses[-1]},
        "method_settings": dict(settings), "learning_rate": optimisation.learning_rate,
        "bill": {**asdict(found := ledger.bill(pays, steps)), "total": found.total},
        "reference_moves": len(steps) // companion.every if companion else None,
        "engine": choice.sentence, "processes": team.size,
        "alone": alone(run.pairs, steps, learner.micro_tokens),
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


def _choice(work: Work, model: Any) -> Choice:
    """The board's engine; layers are computed twice where memory asks for it."""
    s = work.settings
    splits = [load_pairs(work.inputs["tokens"], split) for split in SPLITS]
    choice, most = chosen(work, model, longest(*splits)), s.get("micro_tokens", Budget.micro_tokens)
    counts = token_counts(splits[0]).sum(0)
    two = [splits[0][int(row)] for row in counts.argsort()[::-1][:2]]
    pairs = max(1, min(s["micro_pairs"], most // int(counts.max())))
    with device.precision(model.device, s["precision"]):
        return fitted(choice, model, two, free_bytes(model.device), pairs)


def _live(
    base: Base, method: Method, settings: Mapping[str, Any], policy: Any
) -> tuple[Any | None, Follower | None]:
    """A reference model in memory, where the method needs one, and what moves it."""
    if "divergence" not in method.reads and method.moving_reference is None:
        return None, None
    if method.moving_reference is None:
        return base.shared(), None
    check_followable(policy)
    reference = frozen(base.own())
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
