"""The reference policy: a model made or loaded, then trained on the task's own texts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from harness.contracts.method import State
from harness.contracts.task import Task
from harness.data.tokens import TokenRules
from harness.engine.branches import Sequences
from harness.engine.choice import choose
from harness.engine.engines import NOTHING, Engine
from harness.registry import load_task
from harness.store.stage import Work
from harness.train import device
from harness.train.loop import Objective, Optimisation, fit, order
from harness.train.policy import (
    build_small,
    check_context,
    load_policy,
    save_policy,
    without_dropout,
)


def warm_start(work: Work) -> Mapping[str, Any]:
    """Stage: the reference policy of a task, from its texts; weights and loss curve.

    Raises:
        DataError: the model cannot be loaded, or cannot read as many tokens as the budget allows.
    """
    s = work.settings
    device.exactly()
    where = device.device()
    task = load_task(s["task"]).build(**s["task_settings"])
    model, tokenizer = _start(s, task)
    check_context(model, s["max_tokens"])
    without_dropout(model.to(where))
    rules = TokenRules.of(tokenizer)
    sequences, cut = _sequences(work.inputs["corpus"], rules, s["texts"], s["max_tokens"])
    steps = order(len(sequences), s["epochs"], s["per_step"], s["seed"])
    choice = choose(s["engine"], model, s["max_tokens"])
    with device.precision(where, s["precision"]):
        _, history = fit(
            model, steps, _objective(choice.engine, model, sequences, s["micro"]),
            Optimisation(s["learning_rate"], weight_decay=s["weight_decay"]), scratch=work.scratch,
            checkpoint_steps=s["checkpoint_steps"], report=work.report,
        )  # fmt: skip
    save_policy(model, tokenizer, work.out)
    (work.out / "history.json").write_text(json.dumps(vars(history)))
    return {
        "texts": len(sequences), "cut": cut, "steps": len(steps),
        "loss": {"first": history.losses[:1], "last": history.losses[-1:]},
        "parameters": sum(p.numel() for p in model.parameters()), "engine": choice.sentence,
        **device.facts(where),
    }  # fmt: skip


def _start(s: Mapping[str, Any], task: Task) -> tuple[Any, Any]:
    if s["model"] is not None:
        return load_policy(s["model"])
    assert task.small_model is not None, "a plan without a model has a small one"
    return build_small(task.small_model, s["seed"])


def _sequences(
    corpus: Path, rules: TokenRules, texts: int, max_tokens: int
) -> tuple[Sequences, int]:
    """Texts as (first token, rest); the first token is the BOS where there is one."""
    with (corpus / "texts.jsonl").open(encoding="utf-8") as lines:  # splitlines() ends at \x85 too
        whole = [rules.text_ids(json.loads(line)) for line in islice(lines, texts)]
    kept = [ids[:max_tokens] for ids in whole if len(ids) > 2]
    cut = sum(len(ids) > max_tokens for ids in whole)
    return [(ids[:1], ids[1:]) for ids in kept], cut


def _objective(engine: Engine, model: Any, sequences: Sequences, micro: int) -> Objective:
    """Mean negative log-prob per token of a step, split into micro-batches."""

    def objective(
        _step: int, rows: Sequence[int], _state: State | None
    ) -> tuple[float, State | None]:
        tokens = sum(len(sequences[row][1]) for row in rows)
        total = 0.0
        for start in range(0, len(rows), micro):
            batch = [sequences[row] for row in rows[start : start + micro]]
            loss = -engine(model, batch, NOTHING)["logprobs"].total().sum() / tokens
            torch.autograd.backward(loss)
            total += float(loss.detach())
        return total, None

    return objective
