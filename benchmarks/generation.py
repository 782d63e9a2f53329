"""Tokens per second of generation: the library's loop in batches of equal length, and ours.

    python benchmarks/generation.py [rounds] [fp32|bf16]

Both write answers for the same prompts, in turn; medians over the rounds, and the least and most.
Profiles: `world`, short prompts of the embedded world and its model (a fresh one: its speed does
not hang on its weights); `mixed`, prompts of 64 to 256 tokens and a Llama of 15 million parameters.
Several ids end an answer, so that answers have lengths of all kinds, a third of the limit on
average; otherwise both would write to the limit, and a row that leaves early would save nothing.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from harness.contracts.task import Sizes
from harness.data.tokens import TokenRules
from harness.generate.draws import Draws
from harness.generate.ways import TOKENS, find_way
from harness.registry import load_task
from harness.train.policy import build_small

Prompts = Sequence[tuple[int, ...]]


def world() -> tuple[Any, Prompts, int]:
    """The sentiment world's model, 200 of its prompts four times each, 48 tokens at most."""
    task = load_task("sentiment").build()
    corpus = task.corpus(Sizes(100, 20, 20, 200), np.random.default_rng(0))
    assert task.small_model is not None
    model, tokenizer = build_small(task.small_model, 0)
    texts = [prompt.text for prompt in corpus.prompts if prompt.split == "test"]
    ids = [TokenRules.of(tokenizer).prompt_ids(text) for text in texts]
    return model, [prompt for prompt in ids for _ in range(4)], 48


def mixed() -> tuple[Any, Prompts, int]:
    """A Llama of 15 M parameters, 48 prompts of 64 to 256 tokens, 64 tokens each."""
    config = LlamaConfig(
        vocab_size=32_000, hidden_size=288, intermediate_size=768, num_hidden_layers=6,
        num_attention_heads=6, num_key_value_heads=6, max_position_embeddings=512,
        tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    draw = np.random.default_rng(0)
    lengths = draw.integers(64, 257, 48)
    prompts = [tuple(int(i) for i in draw.integers(3, 32_000, n)) for n in lengths]
    return LlamaForCausalLM(config), prompts, 64


def library(model: Any, prompts: Prompts, most: int, ends: list[int]) -> int:
    """Tokens that `model.generate` writes in batches of equal length, 512 rows at most."""
    rows = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=True, top_k=0, max_new_tokens=most, eos_token_id=ends, pad_token_id=0
    )
    written = 0
    while rows:
        width = len(prompts[rows[0]])
        batch = [row for row in rows[:512] if len(prompts[row]) == width]
        rows = rows[len(batch) :]
        ids = torch.tensor([prompts[row] for row in batch], device=model.device)
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
        )
        for answer in out[:, width:].tolist():
            end = next((i for i, token in enumerate(answer) if token in ends), most)
            written += len(answer[: end + 1])
    return written


def ours(model: Any, prompts: Prompts, most: int, ends: list[int]) -> int:
    """Tokens that the harness writes, the time to find its way included."""
    way = find_way(model, prompts, most)
    written = 0
    for batch in way.batches([len(p) for p in prompts], most, TOKENS[model.device.type]):
        draws = Draws.of(0, [(str(row), 0) for row in batch], 1.0)
        answers = way.write(model, [prompts[row] for row in batch], draws, most, frozenset(ends))
        written += sum(map(len, answers))
    return written


def rate(write: Callable[..., int], *given: Any) -> float:
    """Tokens per second of wall time."""
    start = time.perf_counter()
    written = write(*given)
    return written / (time.perf_counter() - start)


def main(rounds: str = "5", precision: str = "fp32") -> None:
    """Print both rates of both profiles, and their ratio."""
    where = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"{where}, {torch.get_num_threads()} threads, {precision}, tokens/s of {rounds} rounds")
    for profile in (world, mixed):
        torch.manual_seed(0)
        model, prompts, most = profile()
        model.eval().to(where)
        ends = list(range(2, 2 + 3 * model.config.vocab_size // most))
        rates: dict[str, list[float]] = {"library": [], "ours": []}
        with torch.no_grad(), torch.autocast(where, torch.bfloat16, precision == "bf16"):
            for turn in range(int(rounds) + 1):
                for name, write in (("library", library), ("ours", ours)):
                    found = rate(write, model, prompts, most, ends)
                    if turn:  # the first one warms up
                        rates[name].append(found)
        for name, values in rates.items():
            line = f"{median(values):9.0f} ({min(values):.0f} to {max(values):.0f})"
            print(f"{profile.__name__:<7}{name:<9}{line}")
        ratio = median(rates["ours"]) / median(rates["library"])
        print(f"{profile.__name__:<7}ratio    {ratio:9.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
