"""Tiny causal models of random weights, pairs of random ids, and a small world of words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from safetensors.torch import save_file

from harness.contracts.method import Method
from harness.contracts.task import SmallModel
from harness.data.token_store import save_pairs, tokenise_pairs
from harness.data.tokens import TokenPair
from harness.engine.engines import Also, Engine, oracle, padded, pair_columns
from harness.records import Pair, Prompt, Split, write_jsonl
from harness.store.stage import Work
from harness.train.live_reference import frozen
from harness.train.mismatched import mismatch
from harness.train.policy import build_small, save_policy
from harness.train.reference import write_columns
from harness.train.resident import Residence
from harness.train.run import Run
from harness.train.step import Learner

# Matrices this small are slower on two threads, and far slower on a machine that is busy.
torch.set_num_threads(1)

VOCABULARY = 61
CPU = torch.device("cpu")

_IDS = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
# Weights wide enough that no two tokens are nearly alike: a wrong head or position shows.
_LLAMA = {
    "hidden_size": 64,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "initializer_range": 0.15,
    **_IDS,
}
_GPT = {
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "n_positions": 64,
    "initializer_range": 0.15,
    **_IDS,
}

ARCHITECTURES: Mapping[str, tuple[type[Any], dict[str, Any]]] = {
    "llama, tied": (hf.LlamaConfig, {**_LLAMA, "tie_word_embeddings": True}),
    "llama": (hf.LlamaConfig, _LLAMA),
    "gpt2, learned positions": (hf.GPT2Config, _GPT),
    "gemma2, soft caps": (
        hf.Gemma2Config,
        {
            **_LLAMA,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "final_logit_softcapping": 3.0,
            "attn_logit_softcapping": 5.0,
            "sliding_window": 4,
        },
    ),
    "cohere, logit_scale": (hf.CohereConfig, {**_LLAMA, "logit_scale": 0.25}),
    "granite, logits_scaling": (
        hf.GraniteConfig,
        {**_LLAMA, "logits_scaling": 4.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5},
    ),
    "phi, head with a bias": (hf.PhiConfig, {**_LLAMA, "num_key_value_heads": 2}),
    "gptj, head with a bias": (hf.GPTJConfig, {**_GPT, "rotary_dim": 8}),
    "qwen2": (hf.Qwen2Config, _LLAMA),
    "qwen3, norms of queries and keys": (hf.Qwen3Config, {**_LLAMA, "head_dim": 32}),
    "bitnet, norms within": (hf.BitNetConfig, _LLAMA),
    "mistral, sliding window": (hf.MistralConfig, {**_LLAMA, "sliding_window": 4}),
    "bloom, no positions": (
        hf.BloomConfig,
        {"hidden_size": 32, "n_layer": 2, "n_head": 2, "initializer_range": 0.15, **_IDS},
    ),
}


def tiny(architecture: str = "llama, tied", seed: int = 0, **config: Any) -> Any:
    """A causal model of random weights without dropout; biases are random too, not zero."""
    kind, keys = ARCHITECTURES[architecture]
    torch.manual_seed(seed)
    model = hf.AutoModelForCausalLM.from_config(kind(**{**keys, **config})).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def trained_policy(reference: Path, trained: Path) -> Any:
    """The policy of a finished training stage, as the stages after it get it."""
    with Residence(most=1).borrowed(reference, CPU) as base:
        return base.trained(trained)


def bigrams(logprobs: torch.Tensor) -> Any:
    """A Llama whose next token depends on the last one alone: log p(y | x) is logprobs[x, y]."""
    size = len(logprobs)
    model = tiny("llama", vocab_size=size, rms_norm_eps=1e-12, num_hidden_layers=1)
    with torch.no_grad():
        layer = model.model.layers[0]
        for silent in (layer.self_attn.o_proj, layer.mlp.down_proj):
            silent.weight.zero_()
        width = model.config.hidden_size
        model.model.embed_tokens.weight.copy_(torch.eye(size, width))
        # The norm makes a one-hot vector sqrt(width) long.
        model.lm_head.weight.zero_()
        model.lm_head.weight[:, :size] = logprobs.T / width**0.5
    return model


def some_ids(generator: np.random.Generator, count: int) -> tuple[int, ...]:
    return tuple(int(i) for i in generator.integers(3, VOCABULARY, count))


def some_pairs(count: int, seed: int = 0, prompt: int = 9, answer: int = 12) -> list[TokenPair]:
    """Pairs of random ids and random lengths, up to and with the given ones."""
    draw = np.random.default_rng(seed)
    return [
        TokenPair(
            f"pair {row}",
            some_ids(draw, int(draw.integers(1, prompt + 1))),
            some_ids(draw, int(draw.integers(1, answer + 1))),
            some_ids(draw, int(draw.integers(1, answer + 1))),
        )
        for row in range(count)
    ]


def write_caches(
    folder: Path, pairs: Sequence[TokenPair], reference: Any, split: Split = "train"
) -> dict[str, Path]:
    """Token pairs, what the reference gives to them and to others, and random rewards of a split.

    As the stages write them.
    """
    inputs = {name: folder / name for name in ("tokens", "reference", "margins", "mismatched")}
    for place in inputs.values():
        place.mkdir(parents=True, exist_ok=True)
    save_pairs(inputs["tokens"] / f"{split}.safetensors", pairs)
    for name, some in (("reference", pairs), ("mismatched", mismatch(pairs))):
        see = partial(pair_columns, oracle, reference, also=Also(("entropy",)))
        with torch.no_grad():
            write_columns(inputs[name] / f"{split}.safetensors", some, see, ("logprobs", "entropy"))
    draw = torch.Generator().manual_seed(len(pairs))
    rewards = {side: 3 * torch.randn(len(pairs), generator=draw) for side in ("chosen", "rejected")}
    save_file(rewards, inputs["margins"] / f"{split}.safetensors")
    return inputs


def make_run(
    method: Method,
    model: Any,
    pairs: Sequence[TokenPair],
    inputs: Mapping[str, Path],
    *,
    micro: int = 4,
    settings: Mapping[str, Any] | None = None,
    engine: Engine = padded,
    seed: int = 0,
    reference: Any = None,
) -> Run:
    """A run on the pairs that the inputs were made of.

    `reference` is the model that made the caches, for methods that need it in memory.
    """
    method = method.narrowed(settings)
    live = frozen(reference) if reference is not None else None
    learner = Learner(engine, model, method, method.resolve(settings), micro, live)
    return replace(Run.of(learner, inputs, "train", where=CPU, seed=seed), pairs=pairs)


GOOD = ("good", "great", "fine")
BAD = ("bad", "dull", "poor")
WORDS = (*GOOD, *BAD, "film", "cast", "plot", "the", "and", "is", ".")
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 64,
}
LIMITS = {"prompt_tokens": 16, "response_tokens": 16, "overlong": "cut"}


@dataclass(frozen=True)
class World:
    """Folders of what the first stages leave behind, and how to run one more."""

    folder: Path
    inputs: dict[str, Path]

    def work(self, name: str, settings: Mapping[str, Any], **more: Path) -> Work:
        """What a stage function is given; results land in `inputs` under this name."""
        self.inputs[name] = self.folder / name
        self.inputs[name].mkdir(exist_ok=True)
        scratch = self.folder / f"{name}-scratch"
        inputs = {**self.inputs, **more}
        return Work(settings, inputs, self.inputs[name], scratch, lambda *_: None)


def text_pairs(count: int, held_out: int, seed: int = 0) -> list[Pair]:
    """Distinct pairs in which the chosen answer has a good word where the other has a bad one."""
    draw = np.random.default_rng(seed)
    found: dict[tuple[str, str, str], Pair] = {}
    while len(found) < count + held_out:
        subjects = [str(word) for word in draw.choice(["film", "cast", "plot"], 5)]
        good, bad, last = str(draw.choice(GOOD)), str(draw.choice(BAD)), str(draw.choice(GOOD))
        middle = "".join(f" and the {word}" for word in subjects[2 : draw.integers(2, 6)])
        prompt = f"the {subjects[0]} and the {subjects[1]}"
        answers = tuple(f" is {word}{middle} is {last} ." for word in (good, bad))
        split: Split = "train" if len(found) < count else "validation"
        pair = Pair(f"{split}-{len(found)}", split, prompt, *answers)
        found.setdefault((prompt, *answers), pair)
    return list(found.values())


def make_world(folder: Path, pairs: int = 96, held_out: int = 48) -> World:
    """A tiny policy with a tokenizer of words, prompts, labelled pairs and their token ids."""
    folder.mkdir(exist_ok=True)
    names = ("policy", "corpus", "pairs")
    world = World(folder, {name: folder / name for name in names})
    for name in names:
        (folder / name).mkdir()
    model, tokenizer = build_small(SmallModel(WORDS, SHAPE), seed=0)
    save_policy(model, tokenizer, folder / "policy")
    labelled = text_pairs(pairs, held_out)
    write_jsonl(folder / "pairs" / "pairs.jsonl", labelled)
    prompts = [
        Prompt(f"test-{row}", "test", " ".join(WORDS[row % 9 : row % 9 + 1 + row % 3]))
        for row in range(12)
    ]
    write_jsonl(folder / "corpus" / "prompts.jsonl", prompts)
    texts = [pair.prompt + pair.chosen for pair in labelled]
    lines = "".join(json.dumps(text) + "\n" for text in texts)
    (folder / "corpus" / "texts.jsonl").write_text(lines)
    most = {"train": pairs, "validation": held_out}
    tokenise_pairs(world.work("tokens", {"limits": LIMITS, "most": most}))
    return world
