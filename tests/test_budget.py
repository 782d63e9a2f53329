"""Bills by hand: what a method would have paid for alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from harness.budget import SUM_FLOPS, Bill, ModelSize, Tokens, bill
from harness.data.token_store import load_pairs
from harness.data.tokens import TokenPair
from harness.registry import load_method
from harness.train.cell import measure, train_cell
from harness.train.ledger import Ledger, payer
from harness.train.reference import score_reference

from .models import ARCHITECTURES, VOCABULARY, World, make_world, tiny

# Not round, so that no two sums are equal by chance.
SIZE = ModelSize(body=1009, head=211, vocabulary=31)
STEPS, DATA = Tokens(7001, 3001), Tokens(503, 101)
OTHER_STEPS, OTHER_DATA = Tokens(6007, 2003), Tokens(401, 97)


def found(
    name: str,
    settings: dict[str, Any] | None = None,
    *,
    two_passes: bool = False,
    lora: bool = False,
    epochs: int = 3,
) -> Bill:
    return bill(
        SIZE, payer(load_method(name).narrowed(settings), epochs), steps=STEPS, data=DATA,
        lora=lora, two_passes=two_passes, other_steps=OTHER_STEPS, other_data=OTHER_DATA,
    )  # fmt: skip


FORWARD = 2 * (1009 * 7001 + 211 * 3001)
REFERENCE = 2 * (1009 * 503 + 211 * 101)


def test_dpo_pays_three_forwards_of_training_and_one_of_the_reference() -> None:
    assert found("dpo") == Bill(3 * FORWARD, REFERENCE, 0, 0, 0, 7001)
    assert found("dpo").total == 3 * FORWARD + REFERENCE


def test_simpo_pays_for_no_reference() -> None:
    assert found("simpo") == Bill(3 * FORWARD, 0, 0, 0, 0, 7001)


def test_madpo_pays_for_its_reward_model_too() -> None:
    # Three epochs of forward and backward and one pass for the margins, through the body alone.
    reward = (3 * 6 + 2) * 1009 * 503
    assert found("madpo") == Bill(3 * FORWARD, REFERENCE, reward, 0, 0, 7001)
    assert found("madpo", epochs=1).reward == 8 * 1009 * 503


def test_a_coupled_step_in_two_passes_pays_one_more_forward() -> None:
    assert found("alphadpo") == Bill(3 * FORWARD, REFERENCE, 0, 0, 0, 7001)
    assert found("alphadpo", two_passes=True) == Bill(4 * FORWARD, REFERENCE, 0, 0, 0, 7001)


def test_kto_pays_for_the_answers_to_other_prompts() -> None:
    other, once = 2 * (1009 * 6007 + 211 * 2003), 2 * (1009 * 401 + 211 * 97)
    assert found("kto") == Bill(3 * FORWARD, REFERENCE, 0, once, other, 7001)
    # They carry no gradient: one forward, also where a step is looked at twice.
    assert found("kto", two_passes=True).extra == other
    assert found("kto").total == 3 * FORWARD + REFERENCE + once + other


def test_tdpo_pays_for_a_reference_that_runs_in_every_step() -> None:
    sums = SUM_FLOPS * 31 * 3001
    assert found("tdpo") == Bill(3 * FORWARD, REFERENCE, 0, 0, FORWARD + sums, 7001)


def test_tr_dpo_pays_for_its_moving_reference_in_every_step_and_for_no_cache() -> None:
    assert found("tr_dpo") == Bill(3 * FORWARD, 0, 0, 0, FORWARD, 7001)


def test_wpo_pays_for_its_sums_over_the_vocabulary() -> None:
    assert found("wpo") == Bill(3 * FORWARD, REFERENCE, 0, 0, SUM_FLOPS * 31 * 3001, 7001)


@pytest.mark.parametrize("name", ["wpo", "tdpo"])
def test_a_step_that_is_looked_at_twice_makes_its_sums_twice(name: str) -> None:
    assert found(name, two_passes=True).extra == 2 * found(name).extra > 0


def test_one_pass_of_the_reference_gives_log_probs_and_entropies() -> None:
    entropies = SUM_FLOPS * 31 * 101
    free, bound = (found("mallowspo", {"reference_free": yes}) for yes in (True, False))
    assert free == bound == Bill(3 * FORWARD, REFERENCE + entropies, 0, 0, 0, 7001)


def test_a_form_that_needs_no_reference_pays_for_none() -> None:
    assert found("adadpo").reference == REFERENCE
    assert found("adadpo", {"form": "simpo"}).reference == 0


def test_frozen_weights_save_a_third_of_training_and_nothing_else() -> None:
    assert found("madpo", lora=True).training == 2 * FORWARD
    assert found("madpo", lora=True).reward == found("madpo").reward
    assert found("alphadpo", lora=True, two_passes=True).training == 3 * FORWARD


def weights(model: Any) -> dict[str, int]:
    return {name: p.numel() for name, p in model.named_parameters()}


def test_a_tied_head_counts_once_and_as_a_head() -> None:
    tied, untied = tiny("llama, tied"), tiny("llama")
    head = VOCABULARY * 64
    assert measure(tied).head == measure(untied).head == head
    assert sum(weights(untied).values()) == sum(weights(tied).values()) + head
    # What a token is multiplied with is the same, tied or not: the embedding is looked up.
    assert measure(tied) == measure(untied)
    assert measure(tied).body == sum(weights(tied).values()) - head


def test_learned_positions_are_looked_up_too() -> None:
    model = tiny("gpt2, learned positions")
    each = weights(model)
    looked_up = each["transformer.wte.weight"] + each["transformer.wpe.weight"]
    expected = ModelSize(sum(each.values()) - looked_up, VOCABULARY * 32, VOCABULARY)
    assert measure(model) == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_measuring_agrees_with_what_a_token_is_multiplied_with(architecture: str) -> None:
    """Counted by hooks: the weights of every linear map that a forward pass goes through."""
    model, passed = tiny(architecture), {}
    for name, module in model.named_modules():
        if list(module.parameters(recurse=False)) and not isinstance(module, torch.nn.Embedding):
            module.register_forward_hook(
                lambda module, *_, name=name: passed.update(
                    {name: sum(p.numel() for p in module.parameters(recurse=False))}
                )
            )
    with torch.no_grad():
        model(input_ids=torch.tensor([[3, 4, 5]]))
    size = measure(model)
    assert size.body + size.head == sum(passed.values())


CELL = {
    "engine": "padded", "method_settings": {}, "seed": 0, "epochs": 2, "pairs_per_step": 10,
    "checkpoint_steps": 100, "precision": "fp32", "reward_epochs": 4,
    "optimisation": {"learning_rate": 1e-3},
}  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    made = make_world(tmp_path_factory.mktemp("world"), pairs=24, held_out=6)
    score_reference(
        made.work("reference", {"precision": "fp32", "engine": "padded", "entropy": False})
    )
    folder = made.folder / "margins"
    folder.mkdir()
    for split, count in (("train", 24), ("validation", 6)):
        zeros = {side: torch.zeros(count) for side in ("chosen", "rejected")}
        save_file(zeros, folder / f"{split}.safetensors")
    made.inputs["margins"] = folder
    return made


def billed(world: World, method: str, micro: int = 10, lora: Any = None) -> dict[str, Any]:
    settings = {**CELL, "method": method, "micro_pairs": micro, "lora": lora}
    work = world.work(f"{method}-{micro}-{lora is None}", settings)
    return dict(train_cell(work))


def by_hand(folder: Path) -> tuple[int, int]:
    """Tokens of both sides of all pairs, and those that are answered with."""
    pairs = load_pairs(folder, "train")
    answers = sum(len(pair.chosen) + len(pair.rejected) for pair in pairs)
    return answers + sum(2 * len(pair.prompt) for pair in pairs), answers


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
def test_a_cell_is_billed_for_what_it_did(world: World) -> None:
    both, answers = by_hand(world.inputs["tokens"])
    # 48 rows in two epochs make four steps of ten: eight rows of the last epoch are not trained on.
    facts = billed(world, "dpo")
    assert (facts["steps"], facts["pairs"]) == (4, 40)
    dpo = facts["bill"]
    assert 40 / 48 * 2 * both * 0.9 < dpo["tokens"] < 40 / 48 * 2 * both * 1.1
    assert dpo["tokens"] < 2 * both
    one_pass = dpo["reference"]
    assert dpo["training"] == pytest.approx(3 * 40 / 24 * one_pass, rel=0.1)
    assert dpo["total"] == dpo["training"] + one_pass
    # Every method sees the same pairs in the same order, and so the same tokens.
    others = {
        "simpo": billed(world, "simpo")["bill"],
        "madpo": billed(world, "madpo")["bill"],
        "alphadpo": billed(world, "alphadpo")["bill"],
        "alphadpo, split": billed(world, "alphadpo", micro=5)["bill"],
        "dpo, split": billed(world, "dpo", micro=5)["bill"],
    }
    assert {other["tokens"] for other in others.values()} == {dpo["tokens"]}
    assert others["simpo"]["total"] == dpo["training"]
    assert others["dpo, split"] == dpo
    assert others["alphadpo"] == dpo
    assert others["alphadpo, split"]["training"] * 3 == dpo["training"] * 4
    body = (one_pass // 2 - 17 * 32 * answers) // both  # 17 words and special ids, 32 wide
    assert others["madpo"]["reward"] == (4 * 6 + 2) * body * both
    assert others["madpo"]["training"] == dpo["training"]
    lora = billed(world, "dpo", lora={"rank": 2, "alpha": 4.0, "targets": "all-linear"})["bill"]
    assert lora["training"] * 3 == dpo["training"] * 2
    assert lora["reference"] == dpo["reference"]


def test_answers_to_other_prompts_are_billed_at_their_own_lengths() -> None:
    pairs = [
        TokenPair("a", (1,), (5,) * 3, (6,) * 4),
        TokenPair("b", (2,) * 10, (7,) * 20, (8,)),
        TokenPair("c", (3,) * 2, (9,), (4,) * 2),
    ]
    ledger = Ledger(pairs, SIZE, False, 4, 2, 1, 0, None)
    bill = ledger.bill(payer(load_method("kto"), 0), [[0, 1], [1]])
    # Each prompt with the answers of the pair before it: c's after a, a's after b, b's after c.
    others = [(2 * 1 + 3, 3), (2 * 10 + 7, 7), (2 * 2 + 21, 21)]
    flops = [2 * (1009 * both + 211 * answers) for both, answers in others]
    assert bill.mismatched == sum(flops)
    assert bill.extra == flops[0] + 2 * flops[1]


@pytest.mark.parametrize("name", ["sampo", "alphadpo", "kto", "gammapo"])
def test_whoever_needs_the_whole_step_pays_for_looking_twice(name: str) -> None:
    assert payer(load_method(name).narrowed(), 0).whole_step
    assert not payer(load_method("dpo").narrowed(), 0).whole_step
