"""The reward model of the methods that read margins: the policy's backbone with a scalar head."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_model, save_file, save_model
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from harness.contracts.method import State
from harness.data.token_store import load_pairs, token_counts
from harness.data.tokens import TokenPair
from harness.engine.branches import Sequences
from harness.engine.choice import chosen, longest, prepared
from harness.engine.trunks import Trunk, backbone, padded_states
from harness.store.stage import Work
from harness.train import device
from harness.train.batches import by_length
from harness.train.loop import Objective, Optimisation, fit, order
from harness.train.policy import without_dropout
from harness.train.reference import SPLITS
from harness.train.resident import RESIDENCE


class RewardModel(nn.Module):
    """A scalar for a prompt and an answer, read off the last token's hidden state."""

    def __init__(self, body: Any, trunk: Trunk = padded_states) -> None:
        super().__init__()
        self.body = body
        self.trunk = trunk
        self.score = nn.Linear(body.config.get_text_config().hidden_size, 1, bias=False)
        nn.init.zeros_(self.score.weight)

    def forward(self, sequences: Sequences) -> Tensor:
        """Rewards of the answers, [sequences], fp32."""
        # What follows an answer is never fed; asking for it gives the state of the last token.
        asked = [(prompt, (*answer, 0)) for prompt, answer in sequences]
        ends = torch.tensor([len(answer) for _, answer in asked]).cumsum(0) - 1
        last = self.trunk(self.body, asked)[ends.to(self.score.weight.device)]
        with torch.autocast(last.device.type, enabled=False):
            rewards: Tensor = self.score(last.float()).squeeze(-1)
        return rewards


def train_reward_model(work: Work) -> Mapping[str, Any]:
    """Stage: a Bradley-Terry reward model of the training pairs; accuracy on held-out ones.

    The loss is the mean of -log sigmoid(r(chosen) - r(rejected)) over training pairs only; the
    validation pairs give accuracy and calibration for the manifest.
    """
    s = work.settings
    device.exactly()
    where = device.device()
    torch.manual_seed(s["seed"])
    pairs, held_out = (load_pairs(work.inputs["tokens"], split) for split in SPLITS)
    with RESIDENCE.borrowed(work.inputs["policy"], where) as base:
        policy = without_dropout(base.own())
    choice = chosen(work, policy, longest(pairs, held_out)).with_states
    model = RewardModel(backbone(policy), choice.states).to(where)
    steps = order(len(pairs), s["epochs"], s["per_step"], s["seed"])
    with device.precision(where, s["precision"]), prepared(policy, choice):
        _, history = fit(
            model, steps, _objective(model, pairs, s["micro"]),
            Optimisation(s["learning_rate"], weight_decay=s["weight_decay"]), scratch=work.scratch,
            checkpoint_steps=s["checkpoint_steps"], report=work.report,
        )  # fmt: skip
        found = margins(model, held_out)
    save_model(model, str(work.out / "model.safetensors"))
    (work.out / "history.json").write_text(json.dumps(vars(history)))
    return {
        "steps": len(steps), "held_out": calibration(found), "engine": choice.sentence,
        **device.facts(where),
    }  # fmt: skip


def _objective(model: RewardModel, pairs: Sequence[TokenPair], micro: int) -> Objective:
    def objective(
        _step: int, rows: Sequence[int], _state: State | None
    ) -> tuple[float, State | None]:
        total = 0.0
        for start in range(0, len(rows), micro):
            batch = [pairs[row] for row in rows[start : start + micro]]
            chosen, rejected = _rewards(model, batch)
            loss = -logsigmoid(chosen - rejected).sum() / len(rows)
            torch.autograd.backward(loss)
            total += float(loss.detach())
        return total, None

    return objective


def _rewards(model: RewardModel, pairs: Sequence[TokenPair]) -> tuple[Tensor, Tensor]:
    chosen = [(pair.prompt, pair.chosen) for pair in pairs]
    rewards = model(chosen + [(pair.prompt, pair.rejected) for pair in pairs])
    return rewards[: len(pairs)], rewards[len(pairs) :]


def margins(
    model: RewardModel,
    pairs: Sequence[TokenPair],
    report: Callable[[int, int, str], None] = lambda done, total, unit: None,
) -> NDArray[np.float32]:
    """Rewards of the chosen and of the rejected answer, [2, pairs]."""
    found = np.zeros((2, len(pairs)), dtype=np.float32)
    done = 0
    with torch.no_grad():
        for rows in by_length(token_counts(pairs).sum(0).tolist()):
            chosen, rejected = _rewards(model, [pairs[row] for row in rows])
            found[0, rows], found[1, rows] = chosen.cpu(), rejected.cpu()
            done += len(rows)
            report(done, len(pairs), "pairs")
    return found


def calibration(rewards: NDArray[np.float32], bins: int = 10) -> dict[str, Any]:
    """How good the predicted preference probabilities of held-out pairs are.

    Args:
        rewards: [2, pairs], chosen first.
        bins: of equal width over the confidence of the predicted winner, 0.5 to 1.

    Returns:
        accuracy (a tie counts half), log-loss in nats, and the expected calibration error: the
        mean distance between confidence and accuracy over the bins, weighted by their pairs.
    """
    margin = (rewards[0] - rewards[1]).astype(np.float64)
    right = (margin > 0) + 0.5 * (margin == 0)
    confidence = 1 / (1 + np.exp(-np.abs(margin)))
    index = np.minimum(((confidence - 0.5) * 2 * bins).astype(int), bins - 1)
    gaps = [abs(float(confidence[index == b].sum() - right[index == b].sum())) for b in range(bins)]
    return {
        "pairs": len(margin),
        "accuracy": float(right.mean()),
        "log_loss": float(np.logaddexp(0.0, -margin).mean()),
        "calibration_error": sum(gaps) / len(margin),
        "margin": {"mean": float(margin.mean()), "sd": float(margin.std())},
    }


def score_margins(work: Work) -> Mapping[str, Any]:
    """Stage: rewards of both answers of every pair, for all methods that read them."""
    s = work.settings
    device.exactly()
    where = device.device()
    splits = {split: load_pairs(work.inputs["tokens"], split) for split in SPLITS}
    with RESIDENCE.borrowed(work.inputs["policy"], where) as base:
        policy = without_dropout(base.own())
    # Not `prepared`: one pass does not win back what compiling takes.
    choice = chosen(work, policy, longest(*splits.values())).with_states
    choice = replace(choice, compiled=False)
    model = RewardModel(backbone(policy), choice.states).to(where)
    load_model(model, str(work.inputs["reward_model"] / "model.safetensors"))
    with device.precision(where, s["precision"]):
        for split, pairs in splits.items():
            found = margins(model, pairs, work.report)
            tensors = {"chosen": torch.from_numpy(found[0]), "rejected": torch.from_numpy(found[1])}
            save_file({k: t.contiguous() for k, t in tensors.items()}, _file(work.out, split))
    return {"engine": choice.sentence, **device.facts(where)}


def _file(folder: Path, split: str) -> Path:
    return folder / f"{split}.safetensors"
