"""Engines: the right numbers at the right positions, whatever stands beside them in a batch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import LlamaForCausalLM

from harness.contracts.logprobs import LogProbs
from harness.data.tokens import TokenPair, TokenRules
from harness.engine import head as head_module
from harness.engine.engines import (
    ENGINES,
    NOTHING,
    Also,
    Batched,
    Columns,
    Sequences,
    noise_floor,
    oracle,
    padded,
    pair_logprobs,
    shared,
)
from harness.engine.head import Head
from harness.errors import GateError
from harness.train.batches import by_length
from harness.train.device import precision
from harness.train.gate import LIMITS
from harness.train.policy import adapt, load_policy, without_dropout
from harness.train.reference import score

from .models import ARCHITECTURES, CPU, VOCABULARY, bigrams, some_ids, some_pairs, tiny

# What peft and transformers say to each other.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False:UserWarning"),
]

LORA = {"rank": 4, "alpha": 8.0, "targets": "all-linear"}
FAST: Mapping[str, Batched] = {"padded": padded, "shared": shared}


def some_sequences(count: int = 7, seed: int = 0) -> Sequences:
    draw = np.random.default_rng(seed)
    lengths = [(int(draw.integers(1, 14)), int(draw.integers(1, 11))) for _ in range(count)]
    return [(some_ids(draw, prompt), some_ids(draw, answer)) for prompt, answer in lengths]


def rows(found: LogProbs) -> list[Tensor]:
    return [values[mask] for values, mask in zip(found.values, found.mask, strict=True)]


def distance(one: LogProbs, other: LogProbs) -> float:
    assert torch.equal(one.mask, other.mask)
    apart = (one.values - other.values).detach().masked_fill(~one.mask, 0.0)
    return float(apart.abs().max())


def gradients(model: Any, found: LogProbs) -> dict[str, Tensor]:
    """Of a sum of log-probs with weights that differ for every token."""
    draw = torch.Generator().manual_seed(0)
    weights = [torch.randn(len(row), generator=draw) for row in rows(found)]
    model.zero_grad()
    total = sum((row * w).sum() for row, w in zip(rows(found), weights, strict=True))
    torch.autograd.backward(total / len(weights))
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, gradient in one.items():
        scale = max(1.0, float(gradient.abs().max()))
        assert float((gradient - other[name]).abs().max()) <= 1e-5 * scale, name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_padded_equals_the_oracle_in_values_and_gradients(architecture: str) -> None:
    model, sequences = tiny(architecture), some_sequences()
    plain, fast = oracle(model, sequences)["logprobs"], padded(model, sequences)["logprobs"]
    assert distance(plain, fast) <= 1e-5
    assert fast.values.dtype == torch.float32
    assert fast.mask.sum(-1).tolist() == [len(answer) for _, answer in sequences]
    assert_same_gradients(gradients(model, plain), gradients(model, fast))


@pytest.mark.parametrize("engine", FAST)
@pytest.mark.parametrize("name", ["stories260k-llama", "bitllama2-tinystories-1m"])
def test_engines_equal_the_oracle_on_a_trained_model(
    name: str, engine: str, request: pytest.FixtureRequest
) -> None:
    model, tokenizer = load_policy(request.getfixturevalue("shared") / "models" / name)
    without_dropout(model)
    rules = TokenRules.of(tokenizer)
    texts = (
        ("Once upon a time", ", there was a little girl named Lily."),
        ("Tom", " had a dog. The dog was big and it liked to run in the park."),
        ("Lily and Ben went to the park. They saw a", " cat"),
    )
    sequences = [(rules.prompt_ids(p), rules.response_ids(r)[:-1]) for p, r in texts]
    with torch.no_grad():
        plain = oracle(model, sequences)["logprobs"]
        fast = FAST[engine](model, sequences)["logprobs"]
    assert distance(plain, fast) <= 1e-5
    # A trained model finds its own kind of text likely: a shift by one position would not be.
    assert float(plain.mean().mean()) > -2.5


@pytest.mark.parametrize("architecture", ["llama, tied", "gpt2, learned positions"])
def test_adapters_are_in_effect_in_both_engines(architecture: str) -> None:
    before = oracle(tiny(architecture), some_sequences())["logprobs"]
    model = without_dropout(adapt(tiny(architecture), LORA, seed=0))
    assert distance(oracle(model, some_sequences())["logprobs"], before) == 0.0
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1)
    plain, fast = (
        oracle(model, some_sequences())["logprobs"],
        padded(model, some_sequences())["logprobs"],
    )
    assert distance(plain, before) > 0.01
    assert distance(plain, fast) <= 1e-5
    one, other = gradients(model, plain), gradients(model, fast)
    assert all("lora_" in name for name in one)
    assert_same_gradients(one, other)


@pytest.mark.parametrize("longest", [3, 10, 60])
@pytest.mark.parametrize(
    "architecture", ["llama, tied", "gpt2, learned positions", "bloom, no positions"]
)
def test_padding_changes_nothing(architecture: str, longest: int) -> None:
    model, sequences = tiny(architecture), [((5, 6, 7), (8, 9)), ((10,), (11, 12, 13))]
    draw = np.random.default_rng(0)
    companion = (some_ids(draw, longest // 2), some_ids(draw, longest - longest // 2))
    with torch.no_grad():
        alone = [padded(model, [sequence])["logprobs"].values[0] for sequence in sequences]
        beside = rows(padded(model, [*sequences, companion])["logprobs"])
    for one, other in zip(alone, beside, strict=False):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


@pytest.mark.parametrize("engine", ENGINES)
def test_order_and_split_of_batches_change_nothing(engine: str) -> None:
    model, sequences, run = tiny(), some_sequences(9), ENGINES[engine]
    shuffled = np.random.default_rng(1).permutation(9)
    with torch.no_grad():
        whole = rows(run(model, sequences)["logprobs"])
        moved = rows(run(model, [sequences[i] for i in shuffled])["logprobs"])
        parts = rows(run(model, sequences[:2])["logprobs"]) + rows(
            run(model, sequences[2:])["logprobs"]
        )
    for place, row in enumerate(shuffled):
        torch.testing.assert_close(moved[place], whole[row], atol=1e-5, rtol=0)
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_a_pass_without_a_gradient_gives_every_row_back_in_its_own_place() -> None:
    model, sequences = tiny(), some_sequences(40, seed=3)
    found = score(padded, model, sequences)
    assert [len(row) for row in found] == [len(answer) for _, answer in sequences]
    for row, sequence in zip(found, sequences, strict=True):
        np.testing.assert_allclose(
            row, oracle(model, [sequence])["logprobs"].values[0].detach(), atol=1e-5
        )


def test_batches_hold_every_row_once_and_stay_within_their_tokens() -> None:
    lengths = [3, 50, 7, 7, 100, 1, 20, 20, 2]
    batches = list(by_length(lengths, tokens=60))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= 60
    assert batches[0] == [4]
    assert list(by_length([])) == []


# log p(next | last) in base 2, by hand: row 3 says that 4 follows 3 half of the time.
TABLE = torch.tensor(
    [
        [-2.0, -2.0, -2.0, -3.0, -3.0],
        [-3.0, -3.0, -1.0, -3.0, -3.0],
        [-4.0, -4.0, -3.0, -2.0, -1.0],
        [-3.0, -2.0, -3.0, -2.0, -2.0],
        [-1.0, -2.0, -4.0, -4.0, -3.0],
    ]
)


@pytest.mark.parametrize("engine", ENGINES)
def test_five_tokens_by_hand(engine: str) -> None:
    assert torch.allclose((TABLE * math.log(2)).exp().sum(-1), torch.ones(5))
    model = bigrams(TABLE * math.log(2))
    # p(3 | 2) = 2^-2, p(4 | 3) = 2^-2, p(2 | 4) = 2^-4; p(2 | 1), of the prompt, is nowhere.
    found = ENGINES[engine](model, [((1, 2), (3, 4, 2))])["logprobs"]
    torch.testing.assert_close(found.values, torch.tensor([[-2.0, -2.0, -4.0]]) * math.log(2))
    # Neighbours in a batch, of other lengths, the answer of one token among them.
    found = ENGINES[engine](model, [((2,), (4,)), ((0, 0, 1, 2), (3, 4, 2)), ((4,), (0, 2))])[
        "logprobs"
    ]
    expected = torch.tensor([[-1.0, 0.0, 0.0], [-2.0, -2.0, -4.0], [-1.0, -2.0, 0.0]])
    torch.testing.assert_close(found.values * found.mask, expected * math.log(2))
    assert found.mask.tolist() == [[True, False, False], [True] * 3, [True, True, False]]


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_that_knows_nothing_gives_every_token_the_same_share(engine: str) -> None:
    model = tiny("llama")
    torch.nn.init.zeros_(model.lm_head.weight)
    found = ENGINES[engine](model, some_sequences())["logprobs"]
    for row in rows(found):
        torch.testing.assert_close(row, torch.full_like(row, -math.log(VOCABULARY)))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_prompt_token_conditions_and_is_never_scored(engine: str) -> None:
    model, run = bigrams(TABLE * math.log(2)), ENGINES[engine]
    before = run(model, [((1, 2, 3), (4, 0))])["logprobs"].values.detach()
    # The model looks one token back: only the last prompt token conditions, and only what is next.
    assert torch.equal(run(model, [((4, 0, 3), (4, 0))])["logprobs"].values, before)
    after = run(model, [((1, 2, 1), (4, 0))])["logprobs"].values.detach()
    assert float(after[0, 0]) == pytest.approx(-3 * math.log(2), abs=1e-6)
    assert after[0, 1] == before[0, 1]


@pytest.mark.parametrize("engine", ENGINES)
def test_no_answer_moves_the_log_probs_of_another(engine: str) -> None:
    model, pairs = tiny(), some_pairs(3)
    with torch.no_grad():
        before = pair_logprobs(ENGINES[engine], model, pairs)
        first = pairs[0]
        other = TokenPair("other", first.prompt, (*first.chosen, 7, 7, 7, 7), first.rejected)
        after = pair_logprobs(ENGINES[engine], model, [other, *pairs[1:]])
    assert distance(before.rejected, after.rejected) <= 1e-5
    for one, two in zip(rows(before.chosen)[1:], rows(after.chosen)[1:], strict=True):
        torch.testing.assert_close(one, two, atol=1e-5, rtol=0)
    assert after.chosen.length[0] == before.chosen.length[0] + 4
    # Nor a later token an earlier one.
    kept = rows(before.chosen)[0]
    torch.testing.assert_close(rows(after.chosen)[0][: len(kept)], kept, atol=1e-5, rtol=0)


def test_both_sides_of_a_pair_are_what_they_are_called() -> None:
    model = bigrams(TABLE * math.log(2))
    with torch.no_grad():
        found = pair_logprobs(padded, model, [TokenPair("p", (2,), (4, 0), (3,))])
    assert float(found.chosen.total()[0]) == pytest.approx(-2 * math.log(2), abs=1e-6)
    assert float(found.rejected.total()[0]) == pytest.approx(-2 * math.log(2), abs=1e-6)
    assert (float(found.chosen.length[0]), float(found.rejected.length[0])) == (2.0, 1.0)
    assert found.rejected.values.shape == (1, 1)


@dataclass
class Softmaxes(TorchDispatchMode):
    """The rows of every log-softmax over the vocabulary while it lasts, backward passes too."""

    rows: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._log_softmax.default and args[0].shape[-1] == VOCABULARY:
            self.rows.append(args[0].shape[:-1].numel())
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("kept", [100, 4])
@pytest.mark.parametrize("engine", ["padded", "shared"])
@pytest.mark.parametrize("architecture", ["llama, tied", "gemma2, soft caps"])
def test_the_head_sees_answers_only_and_never_more_than_a_tile(
    architecture: str, engine: str, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In both passes; a linear head that keeps its probabilities computes no logits again."""
    model = tiny(architecture, sliding_window=64)
    sequences = [((5,) * 40, (6, 7, 8)), ((9,) * 30, (3, 4, 5, 6)), ((5,), (6,))]
    whole = FAST[engine](model, sequences)["logprobs"]
    expected = gradients(model, whole)
    monkeypatch.setattr(head_module, "KEPT_BYTES", kept * VOCABULARY * 4)
    tiled = replace(FAST[engine], tile=3 * VOCABULARY + 1)
    with Softmaxes() as seen:
        found = tiled(model, sequences)["logprobs"]
        forward = list(seen.rows)
        again = gradients(model, found)
    assert sum(forward) == 8, "all answer tokens, once, and no token of a prompt"
    assert max(seen.rows) == 3
    computed_again = kept == 4 or architecture != "llama, tied"
    assert sum(seen.rows) == (16 if computed_again else 8)
    torch.testing.assert_close(found.values, whole.values, atol=1e-6, rtol=0)
    assert_same_gradients(again, expected)


@pytest.mark.parametrize("engine", ["padded", "shared"])
@pytest.mark.parametrize("architecture", ["llama, tied", "gemma2, soft caps"])
def test_a_vocabulary_larger_than_a_tile_is_projected_row_by_row(
    architecture: str, engine: str
) -> None:
    model, sequences = tiny(architecture, sliding_window=64), some_sequences(3)
    whole = FAST[engine](model, sequences)["logprobs"].values
    with Softmaxes() as seen:
        found = replace(FAST[engine], tile=VOCABULARY // 2)(model, sequences)["logprobs"]
    torch.testing.assert_close(found.values, whole, atol=1e-5, rtol=0)
    assert seen.rows == [1] * sum(len(answer) for _, answer in sequences)


def test_the_sum_over_the_vocabulary_is_in_fp32_under_autocast() -> None:
    draw = torch.Generator().manual_seed(0)
    hidden, targets = torch.randn(400, 64, generator=draw), torch.arange(400) % 5000
    linear = torch.nn.Linear(64, 5000, bias=False)
    torch.nn.init.normal_(linear.weight, std=0.3, generator=draw)
    with torch.no_grad(), precision(CPU, "bf16"):
        found = Head(linear, 5000).columns(hidden, targets)["logprobs"]
        logits = linear(hidden)
        assert logits.dtype == torch.bfloat16
    exact = logits.double().log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    narrow = logits.log_softmax(-1).gather(-1, targets[:, None]).squeeze(-1)
    assert found.dtype == torch.float32
    assert float((found - exact).abs().max()) < 1e-5
    assert float((narrow - exact).abs().max()) > 1e-2  # what the test would see


def test_autocast_sees_weights_that_have_moved() -> None:
    # Autocast may keep a bf16 copy of a weight until it ends, and it ends with the training run.
    model, sequences = tiny("llama"), some_sequences()
    with precision(CPU, "bf16"):
        before = padded(model, sequences)["logprobs"].values.detach()
        with torch.no_grad():
            model.lm_head.weight.mul_(2.0)
        after = padded(model, sequences)["logprobs"].values.detach()
    assert float((after - before).abs().max()) > 0.1


@pytest.mark.parametrize(
    ("architecture", "dropout"),
    [
        ("llama", {"attention_dropout": 0.3}),
        ("gpt2, learned positions", {"attn_pdrop": 0.3, "resid_pdrop": 0.3, "embd_pdrop": 0.3}),
    ],
)
@pytest.mark.parametrize("lora", [None, LORA])
def test_dropout_is_off(architecture: str, dropout: dict[str, float], lora: Any) -> None:
    sequences = some_sequences()
    model = adapt(tiny(architecture, **dropout).train(), lora, seed=0).train()
    assert not torch.equal(
        padded(model, sequences)["logprobs"].values, padded(model, sequences)["logprobs"].values
    )
    without_dropout(model)
    assert torch.equal(
        padded(model, sequences)["logprobs"].values, padded(model, sequences)["logprobs"].values
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_noise_floor_of_an_honest_engine_is_far_below_its_limit(architecture: str) -> None:
    floor = noise_floor(padded, tiny(architecture), some_pairs(4), LIMITS["fp32"]["oracle"])
    assert 0 <= floor < 1e-5


def test_the_noise_floor_of_bf16_is_seen_and_within_its_limit() -> None:
    model, pairs = tiny(initializer_range=0.05), some_pairs(4)
    with precision(CPU, "bf16"):
        floor = noise_floor(padded, model, pairs, LIMITS["bf16"]["oracle"])
        narrow = pair_logprobs(padded, model, pairs)
    assert 1e-4 < floor < LIMITS["bf16"]["oracle"]
    # The oracle is in fp32 even there.
    plain = pair_logprobs(oracle, model, pairs)
    sides = ((narrow.chosen, plain.chosen), (narrow.rejected, plain.rejected))
    assert floor == max(distance(one, other) for one, other in sides)


class ScaledLogits(LlamaForCausalLM):
    """A head trick that no configuration tells of."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        found = super().forward(*args, **kwargs)
        found.logits = found.logits * 1.5
        return found


def test_a_head_that_the_engine_does_not_know_is_refused() -> None:
    model = ScaledLogits(tiny("llama").config).eval()
    with pytest.raises(GateError, match=r"differ from the oracle's .* does not honour"):
        noise_floor(padded, model, some_pairs(4), LIMITS["fp32"]["oracle"])
    assert noise_floor(oracle, model, some_pairs(4), 0.0) == 0.0


@pytest.mark.parametrize("side", ["chosen", "rejected"])
def test_an_engine_that_gives_nan_is_refused_on_either_side(side: str) -> None:
    def broken(model: Any, sequences: Sequences, also: Also = NOTHING) -> Columns:
        found = padded(model, sequences, also)["logprobs"]
        values = found.values.clone()
        values[0 if side == "chosen" else -1, 0] = math.nan
        return {"logprobs": LogProbs(values, found.mask)}

    with pytest.raises(GateError, match="nan"):
        noise_floor(broken, tiny(), some_pairs(4), 1.0)


def test_an_engine_that_is_off_by_one_position_is_refused() -> None:
    def late(model: Any, sequences: Sequences, also: Also = NOTHING) -> Columns:
        return padded(model, [(p[:-1] or p, r) for p, r in sequences], also)

    with pytest.raises(GateError):
        noise_floor(late, tiny(), some_pairs(4), LIMITS["bf16"]["oracle"])
