"""The reward model: learns what the labels say, from the training pairs alone."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from harness.data.token_store import load_pairs, save_pairs
from harness.data.tokens import Ids, TokenPair
from harness.engine.trunks import TRUNKS, backbone
from harness.errors import DivergedError
from harness.train.device import precision
from harness.train.loop import Optimisation, fit, order
from harness.train.reward import (
    RewardModel,
    _objective,
    calibration,
    margins,
    score_margins,
    train_reward_model,
)

from .models import ARCHITECTURES, CPU, World, make_world, some_ids, some_pairs, tiny

SETTINGS = {
    "epochs": 8, "per_step": 16, "micro": 8, "learning_rate": 1e-2, "weight_decay": 0.01,
    "seed": 0, "precision": "fp32", "engine": "shared",
    "checkpoint_steps": 5,
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def trained(world: World) -> dict[str, Any]:
    """The stage's facts; the model lies in the world's inputs."""
    return dict(train_reward_model(world.work("reward_model", SETTINGS)))


def fresh(architecture: str = "llama, tied", seed: int = 0, trunk: str = "padded") -> RewardModel:
    """A reward model that is not zero everywhere, as one is before training."""
    model = RewardModel(backbone(tiny(architecture, seed)), TRUNKS[trunk]).eval()
    torch.nn.init.normal_(model.score.weight, std=0.3)
    return model


def rewards_of(model: RewardModel, texts: Sequence[Ids]) -> Tensor:
    """Rewards of whole texts, each a prompt of one token and the rest."""
    return model([(text[:1], text[1:]) for text in texts])


def some_texts(count: int, seed: int = 0) -> list[Ids]:
    draw = np.random.default_rng(seed)
    return [some_ids(draw, int(draw.integers(1, 20))) for _ in range(count)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_reward_is_read_off_the_last_token_of_its_text(architecture: str) -> None:
    model = fresh(architecture)
    for text in some_texts(3):
        with torch.no_grad():
            hidden = model.body(input_ids=torch.tensor([text])).last_hidden_state[0, -1]
            expected = float(model.score(hidden))
            assert float(rewards_of(model, [text])) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("architecture", ["llama, tied", "gpt2, learned positions"])
def test_neither_padding_nor_company_nor_order_changes_a_reward(architecture: str) -> None:
    model, texts = fresh(architecture), some_texts(7)
    long = tuple(range(3, 53))
    with torch.no_grad():
        alone = [float(rewards_of(model, [text])) for text in texts]
        together = rewards_of(model, texts).tolist()
        beside = rewards_of(model, [long, *texts[::-1]]).tolist()[:0:-1]
    assert together == pytest.approx(alone, abs=1e-5)
    assert beside == pytest.approx(alone, abs=1e-5)
    assert len({round(reward, 3) for reward in alone}) == 7


def test_the_last_token_counts_and_what_is_no_longer_there_does_not() -> None:
    model = fresh()
    with torch.no_grad():
        one, other, longer = rewards_of(model, [(5, 6, 7), (5, 6, 8), (5, 6, 7, 8)]).tolist()
    assert abs(one - other) > 1e-3
    assert abs(one - longer) > 1e-3


@pytest.mark.parametrize("trunk", ["padded", "blocks"])
def test_margins_are_the_same_for_any_batches_and_trunk(trunk: str) -> None:
    model, pairs = fresh(trunk=trunk), some_pairs(30)
    np.testing.assert_allclose(margins(model, pairs), margins(fresh(), pairs), atol=1e-5)
    found = margins(model, pairs)
    assert found.shape == (2, 30)
    for row in (0, 7, 29):
        single = margins(model, [pairs[row]])
        np.testing.assert_allclose(found[:, row], single[:, 0], atol=1e-5)


def test_margins_are_oriented_to_the_label() -> None:
    model, pairs = fresh(), some_pairs(12)
    with torch.no_grad():
        chosen = rewards_of(model, [pair.prompt + pair.chosen for pair in pairs])
        rejected = rewards_of(model, [pair.prompt + pair.rejected for pair in pairs])
    found = margins(model, pairs)
    np.testing.assert_allclose(found[0], chosen, atol=1e-5)
    np.testing.assert_allclose(found[1], rejected, atol=1e-5)
    # Swapping the answers turns every margin round, to the last bit.
    swapped = [replace(pair, chosen=pair.rejected, rejected=pair.chosen) for pair in pairs]
    turned = margins(model, swapped)
    np.testing.assert_array_almost_equal(turned[0] - turned[1], found[1] - found[0], decimal=5)


def test_calibration_by_hand() -> None:
    # Margins log 3, -log 3, log 9 and 0: confidences 0.75, 0.75, 0.9 and 0.5.
    rewards = np.array([[2.0, 0.0, 1.0, 5.0], [2.0, 0.0, 1.0, 5.0]], dtype=np.float32)
    rewards[0] += np.array([math.log(3), -math.log(3), math.log(9), 0.0], dtype=np.float32)
    found = calibration(rewards)
    assert found["pairs"] == 4
    assert found["accuracy"] == (1 + 0 + 1 + 0.5) / 4
    losses = (-math.log(0.75), -math.log(0.25), -math.log(0.9), math.log(2))
    assert found["log_loss"] == pytest.approx(sum(losses) / 4, abs=1e-6)
    # One bin holds 0.75 twice, right once: |1.5 - 1|. Then |0.9 - 1| and |0.5 - 0.5|.
    assert found["calibration_error"] == pytest.approx((0.5 + 0.1 + 0.0) / 4, abs=1e-6)
    assert found["margin"]["mean"] == pytest.approx(math.log(9) / 4, abs=1e-6)
    assert found["margin"]["sd"] == pytest.approx(
        float(np.std([math.log(3), -math.log(3), math.log(9), 0.0])), abs=1e-6
    )


def test_calibration_of_the_honest_is_zero_and_of_the_sure_and_wrong_is_one() -> None:
    margin = math.log(3)  # confidence 3/4, right three times of four
    honest = np.array([[margin] * 3 + [-margin], [0.0] * 4], dtype=np.float32)
    assert calibration(honest)["calibration_error"] == pytest.approx(0.0, abs=1e-6)
    wrong = calibration(np.array([[-1e4] * 3, [0.0] * 3], dtype=np.float32))
    assert wrong["calibration_error"] == pytest.approx(1.0)
    assert (wrong["accuracy"], wrong["log_loss"]) == (0.0, 1e4)


def test_calibration_bins_by_the_confidence_in_the_winner() -> None:
    # Confidences 0.56 and 0.58 share one of ten bins with a right and a wrong answer.
    low, high = math.log(0.56 / 0.44), math.log(0.58 / 0.42)
    rewards = np.array([[low, -high], [0.0, 0.0]], dtype=np.float32)
    assert calibration(rewards, bins=2)["calibration_error"] == pytest.approx(0.07, abs=1e-6)
    assert calibration(rewards, bins=10)["calibration_error"] == pytest.approx(0.07, abs=1e-6)
    assert calibration(rewards, bins=50)["calibration_error"] == pytest.approx(
        (0.44 + 0.58) / 2, abs=1e-6
    )


def test_an_obvious_preference_is_learned(world: World, trained: dict[str, Any]) -> None:
    history = json.loads((world.inputs["reward_model"] / "history.json").read_text())
    # Before the first step every reward is zero.
    assert history["losses"][0] == pytest.approx(math.log(2), abs=1e-6)
    assert trained["steps"] == len(history["losses"]) == 48
    assert trained["held_out"]["pairs"] == 48
    assert trained["held_out"]["accuracy"] > 0.9
    assert trained["held_out"]["log_loss"] < 0.3


def test_margins_are_what_the_saved_model_says(world: World, trained: dict[str, Any]) -> None:
    assert trained["held_out"]["accuracy"] > 0.9
    work = world.work("margins", {"precision": "fp32", "engine": "shared"})
    score_margins(work)
    for split in ("train", "validation"):
        pairs = load_pairs(world.inputs["tokens"], split)
        found = load_file(work.out / f"{split}.safetensors")
        assert found["chosen"].shape == found["rejected"].shape == (len(pairs),)
        assert float((found["chosen"] > found["rejected"]).float().mean()) > 0.9
    margin = (found["chosen"] - found["rejected"]).double()
    assert float(margin.mean()) == pytest.approx(trained["held_out"]["margin"]["mean"], abs=1e-5)


def with_validation(world: World, folder: Path, pairs: Sequence[TokenPair]) -> Path:
    save_pairs(folder / "train.safetensors", load_pairs(world.inputs["tokens"], "train"))
    save_pairs(folder / "validation.safetensors", pairs)
    return folder


def test_held_out_pairs_move_no_weight(
    world: World, trained: dict[str, Any], tmp_path: Path
) -> None:
    held_out = load_pairs(world.inputs["tokens"], "validation")
    swapped = [replace(pair, chosen=pair.rejected, rejected=pair.chosen) for pair in held_out]
    work = world.work("other", SETTINGS, tokens=with_validation(world, tmp_path, swapped[:-3]))
    facts = train_reward_model(work)
    for name in ("model.safetensors", "history.json"):
        mine = (world.inputs["reward_model"] / name).read_bytes()
        assert (work.out / name).read_bytes() == mine
    # They are looked at, though: what was right is wrong now.
    assert facts["held_out"]["pairs"] == 45
    assert facts["held_out"]["accuracy"] < 0.1


class KilledError(Exception):
    """The process ends here."""


@pytest.mark.parametrize("step", [7, 20, 47])
def test_a_reward_model_that_was_killed_ends_with_the_same_bits(
    step: int, world: World, trained: dict[str, Any]
) -> None:
    work = world.work(f"killed-{step}", SETTINGS)

    def report(done: int, of: int, unit: str) -> None:
        if unit == "steps" and done == step:
            raise KilledError

    with pytest.raises(KilledError):
        train_reward_model(replace(work, report=report))
    assert list(work.out.iterdir()) == []
    steps = []
    again = train_reward_model(replace(work, report=lambda done, *_: steps.append(done)))
    assert steps[0] == 5 * (step // 5) + 1
    assert again == trained
    for name in ("model.safetensors", "history.json"):
        mine = (world.inputs["reward_model"] / name).read_bytes()
        assert (work.out / name).read_bytes() == mine


@pytest.mark.parametrize("micro", [1, 3, 100])
def test_the_split_into_micro_batches_changes_no_weight(micro: int, tmp_path: Path) -> None:
    pairs, found = some_pairs(16), []
    for size in (8, micro):
        model = fresh()
        fit(
            model, order(16, 1, 8, 0), _objective(model, pairs, size),
            Optimisation(1e-3, epsilon=1e-3), scratch=tmp_path / f"{size}-{len(found)}",
            checkpoint_steps=100, report=lambda *_: None,
        )  # fmt: skip
        found.append({n: p.detach() for n, p in model.named_parameters()})
    for name, weight in found[0].items():
        torch.testing.assert_close(weight, found[1][name], atol=1e-6, rtol=0)


def test_the_loss_is_bradley_terry() -> None:
    model, pairs = fresh(), some_pairs(6)
    rewards = margins(model, pairs).astype(np.float64)
    loss, _ = _objective(model, pairs, 4)(0, range(6), None)
    assert loss == pytest.approx(float(np.log1p(np.exp(rewards[1] - rewards[0])).mean()), abs=1e-5)


def test_rewards_are_fp32_in_bf16(world: World) -> None:
    model = fresh()
    with precision(CPU, "bf16"), torch.no_grad():
        rewards = rewards_of(model, some_texts(5))
        hidden = model.body(input_ids=torch.tensor([[4, 5]])).last_hidden_state
    assert rewards.dtype == torch.float32
    assert hidden.dtype == torch.float32  # the last norm; the matrices before it are in bf16
    work = world.work("narrow", {**SETTINGS, "precision": "bf16"})
    facts = train_reward_model(work)
    assert facts["held_out"]["accuracy"] > 0.9
    scored = world.work(
        "narrow-margins", {"precision": "bf16", "engine": "shared"}, reward_model=work.out
    )
    score_margins(scored)
    found = load_file(scored.out / "validation.safetensors")
    # More different values than bf16 has near one number.
    assert len(set(found["chosen"].tolist())) > 20


def test_a_reward_model_that_diverges_says_so(world: World) -> None:
    work = world.work("wild", {**SETTINGS, "learning_rate": 1e30})
    with pytest.raises(DivergedError, match="at step"):
        train_reward_model(work)
