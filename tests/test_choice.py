"""Which engine a model is run with: by what it is, by what it gives, and by what was measured."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import transformers as hf

from harness.data.token_store import token_counts
from harness.engine.choice import Choice, choose, longest, obstacle, prepared
from harness.engine.engines import largest_difference, oracle, pair_logprobs
from harness.engine.measure import Trial, fitted
from harness.errors import GateError
from harness.train.device import precision
from harness.train.tune import choose_engine, sound

from .models import CPU, World, make_world, some_pairs, tiny

SETTINGS: dict[str, Any] = {"engine": "shared", "precision": "fp32", "measure": None}

MEASURE = {
    "lora": None, "epochs": 1, "pairs_per_step": 8, "micro_pairs": 4, "micro_tokens": 4096,
    "seed": 0,
}  # fmt: skip


def neo(window: int) -> Any:
    """A model whose window stands in its weights' module and in no field that anybody reads."""
    torch.manual_seed(0)
    config = hf.GPTNeoConfig(
        vocab_size=61, hidden_size=32, num_layers=2, num_heads=2, initializer_range=0.15,
        attention_types=[[["global", "local"], 1]], window_size=window, bos_token_id=1,
        eos_token_id=2,
    )  # fmt: skip
    return hf.AutoModelForCausalLM.from_config(config).eval()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.mark.parametrize(
    ("architecture", "trunk", "why"),
    [
        ("llama, tied", "blocks", ""),
        ("gpt2, learned positions", "blocks", ""),
        ("granite, logits_scaling", "blocks", ""),
        ("gptj, head with a bias", "dense", "its attention cannot be replaced"),
        ("mistral, sliding window", "padded", "its window of 4 tokens is shorter than"),
        ("gemma2, soft caps", "padded", "its window of 4 tokens is shorter than"),
        ("bloom, no positions", "padded", "it takes no position ids"),
    ],
)
def test_a_model_gets_the_best_trunk_that_it_can_take(
    architecture: str, trunk: str, why: str
) -> None:
    found = choose("shared", tiny(architecture), 20)
    assert found.trunk == trunk
    assert why in found.why
    assert bool(found.why) == bool(why)
    assert why in found.sentence


@pytest.mark.parametrize("architecture", ["mistral, sliding window", "gemma2, soft caps"])
def test_a_window_is_no_obstacle_where_no_sequence_leaves_it(architecture: str) -> None:
    assert choose("shared", tiny(architecture, sliding_window=20), 20).trunk == "blocks"
    assert choose("shared", tiny(architecture, sliding_window=19), 20).trunk == "padded"


def test_a_model_with_a_state_is_padded() -> None:
    model = hf.AutoModelForCausalLM.from_config(
        hf.MambaConfig(vocab_size=61, hidden_size=32, num_hidden_layers=1)
    )
    assert "linear_attention" in choose("shared", model.eval(), 20).why


def test_what_is_asked_for_by_name_is_given() -> None:
    model = tiny()
    assert choose("padded", model, 20) == Choice("padded")
    assert choose("oracle", model, 20).engine is oracle
    assert [choose(name, model, 20).name for name in ("shared", "padded", "oracle")] == [
        "shared", "padded", "oracle"
    ]  # fmt: skip


def test_a_leak_that_no_field_of_the_config_shows_is_found_by_asking() -> None:
    assert "nats a token from those of single sequences" in str(obstacle("dense", neo(4), 20))
    assert obstacle("dense", neo(64), 20) is None


def test_a_tiny_leak_is_found_in_a_model_whose_attention_hardly_matters() -> None:
    model = neo(4)
    with torch.no_grad():
        for layer in model.transformer.h:
            layer.attn.attention.out_proj.weight *= 0.01
    assert obstacle("dense", model, 20) is not None


def test_an_engine_that_fails_on_the_data_is_replaced_and_the_reason_is_told() -> None:
    model, pairs = neo(16), some_pairs(3, prompt=30, answer=12)
    choice = choose("shared", model, longest(pairs))
    assert choice.trunk == "dense"  # nothing short shows the window
    with torch.no_grad():
        instead, floor = sound(choice, model, pairs, "fp32")
    assert instead.trunk == "padded"
    assert "differ from the oracle's" in instead.why
    assert floor < 1e-4


def test_there_is_no_way_out_for_a_model_that_padding_breaks() -> None:
    model = tiny()
    body = model.base_model
    forward = body.forward

    def crooked(**inputs: Any) -> Any:
        found = forward(**inputs)
        found.last_hidden_state = found.last_hidden_state * (1 + inputs["input_ids"].shape[0])
        return found

    body.forward = crooked
    with pytest.raises(GateError, match="oracle"):
        sound(Choice("padded"), model, some_pairs(3), "fp32")


@pytest.mark.parametrize("architecture", ["llama, tied", "gpt2, learned positions", "qwen2"])
@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_layers_that_are_computed_twice_give_the_same_gradient_from_less_memory(
    architecture: str, kind: str
) -> None:
    model, pairs = tiny(architecture), some_pairs(6)
    plain, twice = Choice("blocks"), Choice("blocks", recompute=True)
    kept, gradients = {}, {}
    with precision(CPU, kind):
        for choice in (plain, twice):
            with prepared(model, choice):
                found = pair_logprobs(choice.engine, model, pairs)
                torch.autograd.backward(found.chosen.total().sum() - found.rejected.mean().sum())
                gradients[choice] = {n: p.grad.clone() for n, p in model.named_parameters()}
                model.zero_grad()
                kept[choice] = Trial(model, pairs).graph_bytes(choice)
        assert Trial(model, pairs).graph_bytes(plain) == pytest.approx(kept[plain], rel=0.2)
    for name, gradient in gradients[plain].items():
        assert torch.equal(gradient, gradients[twice][name]), name
    assert kept[twice] < 0.6 * kept[plain]
    assert not any(m.training for m in model.modules())


@pytest.mark.slow
def test_compiled_layers_give_the_same_numbers_and_are_undone() -> None:
    model, pairs = tiny(), some_pairs(6)
    compiled = Choice("blocks", compiled=True)
    plain = pair_logprobs(compiled.engine, model, pairs)
    with prepared(model, compiled):
        found = pair_logprobs(compiled.engine, model, pairs)
        torch.autograd.backward(found.chosen.total().sum())
    assert largest_difference(plain, found) < 1e-5
    assert all(p.grad is not None for p in model.parameters())
    assert all(layer._compiled_call_impl is None for layer in model.model.layers)


def test_short_runs_take_the_default_unmeasured(world: World) -> None:
    work = world.work("engine", SETTINGS)
    facts = choose_engine(work)
    assert Choice.load(work.out) == Choice("blocks")
    assert facts["measured"] == []
    assert facts["engine"] == "engine shared (blocks)"
    assert facts["noise_floor"] < 1e-4
    assert 1 < facts["padded_tokens"] < 2


@pytest.mark.slow
def test_long_runs_take_the_fastest_of_what_was_measured(world: World) -> None:
    work = world.work("engine-on", {**SETTINGS, "measure": MEASURE})
    facts = choose_engine(work)
    tried = facts["measured"]
    assert {one["trunk"] for one in tried} == {"blocks", "sdpa", "eager"}
    assert len({one["tile"] for one in tried}) == 3
    kernels = tried[:3]
    assert Choice.load(work.out).trunk == min(kernels, key=lambda one: one["seconds"])["trunk"]


@pytest.mark.parametrize("architecture", ["llama, tied", "gptj, head with a bias"])
def test_layers_are_computed_twice_only_where_memory_is_short(architecture: str) -> None:
    model, pairs = tiny(architecture), some_pairs(3)
    choice = choose("shared", model, longest(pairs))
    trial, own = Trial(model, pairs), int(token_counts(pairs).sum())
    needed = trial.graph_bytes(choice)
    assert not fitted(choice, trial, own, 2 * needed).recompute
    assert fitted(choice, trial, own, 2 * needed - 1).recompute
    assert fitted(choice, trial, 2 * own, 4 * needed - 1).recompute
    assert "computed twice" in fitted(choice, trial, own, 0).sentence
    assert not fitted(Choice("oracle"), trial, own, 0).recompute
