"""Which engine a model is run with: by what it is, by what it gives, and by what was measured."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import transformers as hf

from harness.data.tokens import TokenPair
from harness.engine.choice import Choice, choose, chosen, longest, prepared
from harness.engine.engines import largest_difference, noise_floor, oracle, pair_logprobs
from harness.engine.measure import Trial, fastest, fitted
from harness.engine.obstacles import obstacle
from harness.engine.trunks import TRUNKS, widest
from harness.errors import DataError, GateError
from harness.train.device import precision
from harness.train.policy import check_context
from harness.train.reward import score_margins, train_reward_model
from harness.train.tune import choose_engine, sound

from .models import CPU, World, make_world, some_pairs, tiny

SETTINGS: dict[str, Any] = {"engine": "shared", "precision": "fp32", "measure": None}

MEASURE = {
    "lora": None, "epochs": 1, "pairs_per_step": 8, "micro_pairs": 4, "micro_tokens": 4096,
    "seed": 0,
}  # fmt: skip


def neo(window: int, *, told: bool = True) -> Any:
    """A model that masks by the place in a row; `told` in its config and in masks that it keeps."""
    torch.manual_seed(0)
    config = hf.GPTNeoConfig(
        vocab_size=61, hidden_size=32, num_layers=2, num_heads=2, initializer_range=0.15,
        attention_types=[[["global", "local"], 1]], window_size=window, bos_token_id=1,
        eos_token_id=2, max_position_embeddings=128,
    )  # fmt: skip
    model = hf.AutoModelForCausalLM.from_config(config).eval()
    if not told:
        model.config.window_size = 512
        for layer in model.transformer.h:
            attention = layer.attn.attention
            vars(attention)["bias"] = attention._buffers.pop("bias")
    return model


def opt() -> Any:
    """Layers that drop out by a switch of their own."""
    torch.manual_seed(0)
    config = hf.OPTConfig(
        vocab_size=61, hidden_size=32, ffn_dim=48, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, word_embed_proj_dim=32, dropout=0.1, init_std=0.15,
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
    assert choose("padded", model, 20) == Choice("padded", longest=20)
    assert choose("oracle", model, 20).engine is oracle
    assert [choose(name, model, 20).name for name in ("shared", "padded", "oracle")] == [
        "shared", "padded", "oracle"
    ]  # fmt: skip


def test_a_leak_that_no_field_of_the_config_shows_is_found_by_asking() -> None:
    found = obstacle("dense", neo(4, told=False), 20)
    assert "nats a token from those of single sequences" in str(found)
    assert obstacle("dense", neo(64, told=False), 20) is None


def test_a_tiny_leak_is_found_in_a_model_whose_attention_hardly_matters() -> None:
    model = neo(4, told=False)
    with torch.no_grad():
        for layer in model.transformer.h:
            layer.attn.attention.out_proj.weight *= 0.01
    assert "nats a token from" in str(obstacle("dense", model, 20))


def test_a_model_that_no_prompt_moves_is_padded_because_nothing_can_be_seen() -> None:
    model = tiny()
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight *= 1e-5
    found = choose("shared", model, 20)
    assert found.trunk == "padded"
    assert "no leak would be seen" in found.why
    assert choose("padded", model, 20).why == ""


@pytest.mark.parametrize("length", [10, 11])
def test_a_window_is_found_as_soon_as_answers_beside_a_prompt_can_leave_it(length: int) -> None:
    """No sequence leaves it: what does is the last answer's distance from the prompt in a row."""
    wide = widest(length)
    assert choose("shared", neo(wide, told=False), length).trunk == "dense"
    found = choose("shared", neo(wide - length // 2, told=False), length)
    assert found.trunk == "padded"
    assert "nats a token from" in found.why


def test_a_window_of_any_name_is_an_obstacle_where_rows_can_leave_it() -> None:
    assert "its window of 38 tokens (window_size)" in choose("shared", neo(38), 20).why
    assert choose("shared", neo(39), 20).trunk == "dense"
    for name in ("use_window", "max_window_layers", "sliding_window_pattern"):
        model = tiny()
        setattr(model.config, name, True if name == "use_window" else 3)
        assert choose("shared", model, 20).trunk == "blocks"


def test_a_mask_that_a_model_keeps_is_an_obstacle_where_it_is_not_a_plain_causal_one() -> None:
    model = neo(38)
    model.config.window_size = 512
    assert "attention.bias hides tokens by their place in a row" in choose("shared", model, 20).why
    assert choose("shared", model, 19).trunk == "dense"
    assert "is made for 128 tokens, and rows can have 139" in choose("shared", neo(500), 70).why


def test_answers_beside_a_prompt_are_no_more_than_were_tried() -> None:
    """Twelve beside one prompt, in a window as wide as what the model was tried with."""
    model, answers = neo(widest(12), told=False), [some_pairs(1, seed)[0] for seed in range(6)]
    choice = choose("shared", model, 12)
    assert choice.trunk == "dense"
    pairs = [replace(pair, prompt=(5, 6, 7, 8), chosen=pair.chosen[:8], rejected=pair.rejected[:8])
             for pair in answers]  # fmt: skip
    with torch.no_grad():
        plain = pair_logprobs(oracle, model, pairs)
        assert largest_difference(pair_logprobs(choice.engine, model, pairs), plain) < 1e-5
        unbounded = replace(choice, longest=0).engine
        assert largest_difference(pair_logprobs(unbounded, model, pairs), plain) > 0.01


@pytest.mark.parametrize(
    "architecture", ["llama, tied", "gpt2, learned positions", "gptj, head with a bias"]
)
def test_more_answers_than_the_context_has_room_for_are_no_obstacle(architecture: str) -> None:
    model, prompt = tiny(architecture), (5, 6, 7, 8)
    pairs = [replace(pair, prompt=prompt) for pair in some_pairs(20)]
    choice = choose("shared", model, 64)
    assert choice.name == "shared"
    with torch.no_grad():
        found, plain = (pair_logprobs(e, model, pairs) for e in (choice.engine, oracle))
    assert largest_difference(found, plain) < 1e-5


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_an_engine_that_fails_on_the_data_is_replaced_and_the_reason_is_told(kind: str) -> None:
    model, pairs = neo(20), some_pairs(3, prompt=30, answer=12)
    with torch.no_grad(), precision(CPU, kind):
        instead = sound(Choice("dense", longest=42), model, pairs)
    assert instead.trunk == "padded"
    assert "differ from the oracle's" in instead.why


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
        sound(Choice("padded"), model, some_pairs(3))


def test_positions_that_hang_on_the_longest_of_a_batch_are_refused() -> None:
    factors = {"short_factor": [1.0] * 16, "long_factor": [4.0] * 16}
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 24, **factors}
    config = hf.Phi3Config(
        vocab_size=61, hidden_size=64, intermediate_size=48, num_hidden_layers=2, pad_token_id=0,
        num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64, eos_token_id=2,
        bos_token_id=1, initializer_range=0.15, original_max_position_embeddings=24,
        rope_parameters={"rope_theta": 1e4, **rope},
    )  # fmt: skip
    torch.manual_seed(0)
    model = hf.AutoModelForCausalLM.from_config(config).eval()
    assert choose("shared", model, 24).trunk == "blocks"
    with pytest.raises(GateError, match=r"no engine is right .* 48 tokens"):
        choose("shared", model, 48)
    check_context(model, 24)
    with pytest.raises(DataError, match="longrope"):
        check_context(model, 48)


def test_a_choice_is_not_used_for_sequences_that_it_was_not_tried_with(world: World) -> None:
    work = world.work("engine-short", SETTINGS)
    Choice("blocks", longest=3).save(work.out)
    given = replace(work, inputs={"engine": work.out})
    assert chosen(given, tiny(), 3).trunk == "blocks"
    with pytest.raises(GateError, match="3 tokens, not 4"):
        chosen(given, tiny(), 4)


def test_the_longest_sequence_is_of_any_prompt_and_any_answer() -> None:
    train = [TokenPair("", (1,) * 5, (2,), (3,)), TokenPair("", (1,), (2,) * 4, (3,))]
    held_out = [TokenPair("", (1,), (2,), (3,) * 7)]
    assert longest(train) == 9
    assert longest(train, held_out) == 12


@pytest.mark.parametrize("architecture", ["llama, tied", "gpt2, learned positions", "opt"])
@pytest.mark.parametrize("kind", ["fp32", "bf16"])
def test_layers_that_are_computed_twice_give_the_same_gradient_from_less_memory(
    architecture: str, kind: str
) -> None:
    pairs = some_pairs(6)
    model = opt() if architecture == "opt" else tiny(architecture)
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
    assert not any("forward" in vars(m) for m in model.modules())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what the compiler says to itself
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


def miscompiled(call: Any) -> Any:
    """A model whose layers a compiler puts this in the place of; its head is not compiled."""
    model = tiny("gemma2, soft caps", sliding_window=64)
    for layer in model.model.layers:

        def compile_(*, dynamic: bool, layer: Any = layer) -> None:
            assert dynamic
            layer._compiled_call_impl = partial(call, layer.forward)

        layer.compile = compile_
    return model


@pytest.mark.parametrize("kind", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("call", "why"),
    [
        (lambda forward, x, **more: forward(x * 1.5, **more), "not compiled: its log-probs are"),
        (lambda forward, x, **more: forward(x.detach(), **more), "not compiled: its gradient is"),
        (lambda forward, x, **more: forward(x, **more), ""),
    ],
    ids=["other numbers", "another gradient", "the same"],
)
def test_layers_that_compiling_changes_are_not_compiled(call: Any, why: str, kind: str) -> None:
    model, pairs = miscompiled(call), some_pairs(4)
    with precision(CPU, kind):
        found, told = fastest(Trial(model, pairs), Choice("blocks", longest=21), 10**6)
    assert why in found.why
    assert bool(why) == ("not compiled" in found.why)
    assert (told[-1]["seconds"] is None) == bool(why)
    assert not (found.compiled and why)
    assert all(layer._compiled_call_impl is None for layer in model.model.layers)


def test_the_oracle_that_an_engine_is_compared_with_is_never_compiled() -> None:
    """Or layers that were compiled wrongly would be compared with themselves."""
    model, pairs = tiny(), some_pairs(3)
    layer = model.model.layers[0]
    layer._compiled_call_impl = wrong = lambda x, **more: layer.forward(x * 1.5, **more)
    with pytest.raises(GateError, match="differ from the oracle's"):
        noise_floor(Choice("blocks").engine, model, pairs, 1e-3)
    assert layer._compiled_call_impl is wrong


def without_layers() -> Any:
    """An architecture whose layers are plain modules: nothing finds them among the others."""
    torch.manual_seed(0)
    config = hf.OpenAIGPTConfig(
        vocab_size=61, n_embd=32, n_layer=2, n_head=2, n_positions=64, initializer_range=0.15
    )
    return hf.AutoModelForCausalLM.from_config(config).eval()


def test_nothing_is_said_of_layers_that_cannot_be_told_apart() -> None:
    model, two = without_layers(), some_pairs(2)
    choice = choose("padded", model, longest(two))
    short = fitted(choice, model, two, 0, 1)
    assert not short.recompute
    assert short.sentence == (
        "engine padded: memory is short, and its layers cannot be computed twice"
    )
    found, told = fastest(Trial(model, two), choice, 10**6)
    assert not found.compiled
    assert "not compiled: its layers cannot be told from each other" in found.sentence
    assert told[-1]["seconds"] is None


def test_what_reads_hidden_states_says_what_it_reads_them_with(world: World) -> None:
    choice = Choice("oracle", longest=40)
    assert choice.with_states.sentence == "engine padded: the oracle has no hidden states"
    assert choice.with_states.states is TRUNKS["padded"]
    shared = Choice("blocks", longest=40, compiled=True)
    assert shared.with_states == shared
    settings = {
        "precision": "fp32", "seed": 0, "epochs": 1, "per_step": 16, "micro": 8,
        "learning_rate": 1e-3, "weight_decay": 0.0, "checkpoint_steps": 99, "engine": "oracle",
    }  # fmt: skip
    trained = train_reward_model(world.work("reward_model", settings))
    assert trained["engine"] == "engine padded: the oracle has no hidden states"
    given = world.work("compiled engine", {})
    shared.save(given.out)
    work = world.work("margins", {"precision": "fp32", "engine": "shared"}, engine=given.out)
    assert score_margins(work)["engine"] == "engine shared (blocks)"


def test_short_runs_take_the_default_unmeasured(world: World) -> None:
    work = world.work("engine", SETTINGS)
    facts = choose_engine(work)
    assert replace(Choice.load(work.out), longest=0) == Choice("blocks")
    assert facts["measured"] == []
    assert facts["engine"] == "engine shared (blocks)"
    assert facts["noise_floor"] < 1e-4
    assert 1 < facts["padded_tokens"] < 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what the compiler says to itself
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
    model, two = tiny(architecture), some_pairs(2)
    choice = choose("shared", model, longest(two))
    one, both = (Trial(model, two[:n]).graph_bytes(choice) for n in (1, 2))
    needed = one + 4 * (both - one)
    assert not fitted(choice, model, two, 2 * needed, 5).recompute
    assert fitted(choice, model, two, 2 * needed - 1, 5).recompute
    assert "computed twice" in fitted(replace(choice, compiled=True), model, two, 0, 1).sentence
    assert not fitted(Choice("oracle"), model, two, 0, 1).recompute


def test_what_a_further_pair_needs_is_foretold(world: World) -> None:
    """Weights in bf16 are kept once for all pairs, and must not be counted for each."""
    model, pairs = tiny(num_hidden_layers=4), [some_pairs(1, seed)[0] for seed in range(8)]
    pairs = [replace(pair, prompt=(seed + 3, *range(3, 11)), chosen=(5,) * 12, rejected=(6,) * 12)
             for seed, pair in enumerate(pairs)]  # fmt: skip
    choice = choose("shared", model, longest(pairs))
    with precision(CPU, "bf16"):
        one, two, all_ = (Trial(model, pairs[:n]).graph_bytes(choice) for n in (1, 2, 8))
    assert one + 7 * (two - one) == pytest.approx(all_, rel=0.05)
    assert 8 * one > 1.2 * all_
