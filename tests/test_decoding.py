"""Rows side by side are written as if each were alone, with random numbers of their own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from scipy.stats import chisquare, kstest
from torch import Tensor

from harness.data.tokens import Ids
from harness.errors import DataError
from harness.generate.decode import advance, keep, padded, read, whole
from harness.generate.draws import Draws, gumbel
from harness.generate.ways import Way, find_way
from harness.train.policy import load_policy

from .models import ARCHITECTURES, VOCABULARY, some_ids, tiny

LENGTHS = (7, 1, 12, 3, 7)
ENDS = (2, 11, 12, 13, 14, 15)
"""Enough of them that answers have different lengths."""


def prompts(lengths: Sequence[int] = LENGTHS, seed: int = 0) -> list[Ids]:
    draw = np.random.default_rng(seed)
    return [some_ids(draw, length) for length in lengths]


def draws(count: int, temperature: float = 1.0, seed: int = 0) -> Draws:
    return Draws.of(seed, [(f"p{row}", 0) for row in range(count)], temperature)


def plain(model: Any, ids: Ids) -> Tensor:
    """Logits behind a text, from one pass without a cache."""
    with torch.no_grad():
        logits: Tensor = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
    return logits


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.no_grad()
def test_logits_of_every_step_are_those_of_a_text_alone(architecture: str) -> None:
    model = tiny(architecture)
    texts = prompts()
    rows = read(model, texts)
    draw = np.random.default_rng(1)
    for step in range(16):
        for row, text in enumerate(texts):
            torch.testing.assert_close(rows.logits[row], plain(model, text), atol=1e-4, rtol=1e-4)
        if step in (5, 9):  # some leave, and the others change places
            left = [3, 0, 2, 1] if step == 5 else [2, 0]
            rows, texts = keep(rows, torch.tensor(left)), [texts[row] for row in left]
        tokens = some_ids(draw, len(texts))
        rows = advance(model, rows, torch.tensor(tokens))
        texts = [(*text, token) for text, token in zip(texts, tokens, strict=True)]


def likeliest(model: Any, prompt: Ids, most: int, ends: Sequence[int]) -> Ids:
    """The greedy answer by one plain pass per token."""
    answer: Ids = ()
    while len(answer) < most and not set(answer) & set(ends):
        answer = (*answer, int(plain(model, prompt + answer).argmax()))
    return answer


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_greedy_answers_are_those_of_a_prompt_alone(architecture: str) -> None:
    model = tiny(architecture)
    assert find_way(model, prompts(), 12).write is padded
    found = padded(model, prompts(), draws(5, 0.0), 12, ENDS)
    assert found == [likeliest(model, prompt, 12, ENDS) for prompt in prompts()]


@pytest.mark.parametrize("name", ["stories260k-llama", "bitllama2-tinystories-1m"])
def test_so_are_those_of_real_models(name: str, shared: Path) -> None:
    model, tokenizer = load_policy(shared / "models" / name)
    texts = ("Once upon a time", "The", "Lily and her dog went to the park. They")
    ids = [tuple(tokenizer(text)["input_ids"]) for text in texts]
    assert find_way(model.eval(), ids, 10).said == "padded batches"
    found = padded(model, ids, draws(3, 0.0), 10, (2,))
    assert found == [likeliest(model, prompt, 10, (2,)) for prompt in ids]


# ---- Work


def test_rows_leave_when_they_finish_and_a_prompt_is_read_once() -> None:
    model = tiny("llama")
    shapes: list[tuple[int, int]] = []
    model.register_forward_pre_hook(
        lambda _, __, given: shapes.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    texts = [prompt for prompt in prompts() for _ in range(3)]
    found = padded(model, texts, draws(15), 12, ENDS)
    assert len({len(answer) for answer in found}) > 3
    assert shapes[0] == (5, 12)
    assert {width for _, width in shapes[1:]} == {1}
    assert sum(rows for rows, _ in shapes[1:]) == sum(len(answer) - 1 for answer in found)


@pytest.mark.parametrize("equal_lengths", [False, True])
def test_no_batch_is_over_the_budget_and_no_row_is_left_out(equal_lengths: bool) -> None:
    way = Way(padded, equal_lengths, "")
    lengths = [int(n) for n in np.random.default_rng(0).integers(1, 9, 100)] + [90]
    batches = list(way.batches(lengths, most=4, tokens=60))
    assert sorted(row for batch in batches for row in batch) == list(range(101))
    assert [100] in batches  # too long for the budget, and alone
    sizes = [len(batch) * (max(lengths[row] for row in batch) + 4) for batch in batches]
    assert max(size for size in sizes if size != 94) <= 60
    widths = [len({lengths[row] for row in batch}) for batch in batches]
    assert (max(widths) == 1) == equal_lengths
    assert len(batches) < 25


# ---- Models that cannot be led on in padded batches


def states() -> Any:
    """A model that keeps a state instead of keys, and that padding runs into."""
    torch.manual_seed(0)
    model = hf.MambaForCausalLM(
        hf.MambaConfig(vocab_size=VOCABULARY, hidden_size=32, num_hidden_layers=2, state_size=8)
    )
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return model.eval()


def without_positions() -> Any:
    """A model that counts positions itself, padding included."""
    model = tiny("gpt2, learned positions")
    forward = model.forward

    def deaf(*, position_ids: Any = None, **given: Any) -> Any:
        return forward(**given)

    model.forward = deaf
    return model


@pytest.mark.parametrize("make", [states, without_positions])
def test_a_model_that_padding_changes_is_found_out_and_is_still_right(make: Any) -> None:
    model = make()
    way = find_way(model, prompts(), 10)
    assert way.equal_lengths
    assert way.said.startswith("batches of equal length, slower: with padding ")
    for batch in way.batches(LENGTHS, 10, 1000):
        texts = [prompts()[row] for row in batch]
        found = way.write(model, texts, draws(len(texts), 0.0), 10, ENDS)
        assert found == [likeliest(model, prompt, 10, ENDS) for prompt in texts]


def test_a_model_that_fails_on_padding_is_found_out() -> None:
    model = tiny("llama")
    forward = model.forward

    def narrow(**given: Any) -> Any:
        if not bool(given.get("attention_mask", torch.ones(1)).all()):
            raise NotImplementedError("no padding here\nat all")
        return forward(**given)

    model.forward = narrow
    way = find_way(model, prompts(), 10)
    assert way.equal_lengths
    assert way.said.endswith("with padding LlamaForCausalLM fails (no padding here)")


def test_a_model_that_no_way_is_right_for_is_refused() -> None:
    model = tiny("gpt2, learned positions", resid_pdrop=0.5).train()
    with pytest.raises(DataError, match="GPT2LMHeadModel: what it gives to one token after"):
        find_way(model, prompts(), 10)


def test_both_ways_write_the_same_and_leave_the_model_as_it_was() -> None:
    model = tiny("llama")
    contract = model.generation_config
    texts = [*prompts((6, 6, 6, 6)), prompts((6,))[0]]
    found = padded(model, texts, draws(5), 12, ENDS)
    assert whole(model, texts, draws(5), 12, ENDS) == found
    assert len({len(answer) for answer in found}) > 1
    assert model.generation_config is contract


# ---- Random numbers


def test_the_noise_is_gumbels_also_far_out() -> None:
    words = torch.randint(-(2**31), 2**31, (500, 2), generator=torch.Generator().manual_seed(0))
    noise = gumbel(words.int(), 2000).double()
    shares = torch.exp(-torch.exp(-noise))
    assert kstest(shares.flatten().numpy(), "uniform").pvalue > 1e-3
    assert noise.isfinite().all()
    for power in (3, 4, 5):  # what lets an unlikely token win
        rare = int((noise > -np.log(-np.log1p(-(10.0**-power)))).sum())
        assert abs(rare - 10 ** (6 - power)) < 4.5 * 10 ** ((6 - power) / 2)
    # Fine enough there for a token of a billionth: no grid is to be seen.
    assert len(noise.flatten().topk(200).values.unique()) >= 198
    assert not (gumbel(words.int().flip(1), 2000) == noise).all(-1).any()  # both words count


@torch.no_grad()
def test_tokens_have_their_shares_and_know_nothing_of_each_other() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -30.0])
    for temperature in (1.0, 0.5):
        shares = (logits / temperature).softmax(-1)[:4].double().numpy()
        many = draws(20_000, temperature)
        one, two = (many(logits.expand(20_000, -1), step) for step in (0, 1))
        for tokens in (one, two):
            counts = np.bincount(tokens.numpy(), minlength=5)
            assert counts[4] == 0
            assert chisquare(counts[:4], 20_000 * shares / shares.sum()).pvalue > 1e-3
        for first, second in ((one, two), (one[:-1], one[1:]), (one[::2], two[1::2])):
            pairs = np.bincount((4 * first + second).numpy(), minlength=16)
            expected = len(first) * np.outer(shares, shares).flatten()
            assert chisquare(pairs, expected * len(first) / expected.sum()).pvalue > 1e-3


def test_a_draw_hangs_on_seed_prompt_sample_and_step_alone() -> None:
    logits = torch.zeros(1, 1000)
    names = [("a", 0), ("a", 1), ("b", 0), ("1 a", 0), ("a", 10)]
    seen = {
        int(Draws.of(seed, [name], 1.0)(logits, step))
        for seed in (0, 1) for name in names for step in range(3)
    }  # fmt: skip
    assert len(seen) > 25
    many = Draws.of(0, names, 1.0)
    together = many(logits.expand(5, -1), 2)
    assert together.tolist() == [int(Draws.of(0, [name], 1.0)(logits, 2)) for name in names]
    kept = many.kept(torch.tensor([4, 1]))
    assert kept(logits.expand(2, -1), 2).tolist() == together[[4, 1]].tolist()


def test_large_vocabularies_are_drawn_from_block_by_block() -> None:
    logits = torch.zeros(7, 100_000)
    tokens = draws(7)(logits, 0)
    assert len(set(tokens.tolist())) == 7
    assert [int(draws(7).kept(torch.tensor([row]))(logits[:1], 0)) for row in range(7)] == (
        tokens.tolist()
    )


def test_policies_that_nearly_agree_write_nearly_the_same() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(5000, 200, generator=generator)
    other = logits + 0.05 * torch.randn(5000, 200, generator=generator)
    apart = float((logits.softmax(-1) - other.softmax(-1)).abs().sum(-1).mean() / 2)
    differ = float((draws(5000)(logits, 0) != draws(5000)(other, 0)).float().mean())
    assert 0.01 < apart < 0.03
    assert differ < 2 * apart + 0.005  # one uniform number per token: 15 times apart
