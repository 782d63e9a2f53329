"""What stands beside an answer never reaches it: neither its log-probs nor its gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from harness.contracts.logprobs import LogProbs
from harness.data.tokens import TokenPair
from harness.engine.branches import Sequences
from harness.engine.engines import oracle, pair_logprobs

from .engine_cases import FAST, MODELS, furthest, largest

CLOSE = 1e-5
KINDS = ["llama", "gpt2", "gemma2", "bitnet"]
CHOSEN, REJECTED = (11, 12, 13, 14, 15), (21, 22, 23)
PAIR = TokenPair("pair", (3, 4, 5, 6), CHOSEN, REJECTED)
BESIDE = [
    TokenPair("same prompt", (3, 4, 5, 6), (31, 32), (33, 34, 35, 36)),
    TokenPair("prompt that begins it", (3, 4), (5, 6, 11), (12,)),
    TokenPair("prompt of one token", (3,), (4, 5), (6,)),
]


def real(found: LogProbs) -> list[Tensor]:
    return [values[mask] for values, mask in zip(found.values, found.mask, strict=True)]


def slopes(model: Any, some: Tensor) -> dict[str, Tensor]:
    """Gradient of a weighted sum of these log-probs."""
    model.zero_grad()
    (some * torch.linspace(1.0, 2.0, len(some))).sum().backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def seen_of(engine: Any, model: Any, sequences: Sequences, row: int) -> Any:
    """Log-probs of one sequence among others, and their gradient."""
    some = real(engine(model, sequences)["logprobs"])[row]
    return some.detach(), slopes(model, some)


def assert_same(one: Any, other: Any) -> None:
    torch.testing.assert_close(one[0], other[0], atol=CLOSE, rtol=0)
    assert furthest(one[1], other[1]) <= CLOSE * largest(other[1])


@pytest.mark.parametrize("architecture", KINDS)
@pytest.mark.parametrize("engine", FAST)
@pytest.mark.parametrize(
    "poison",
    [(41, 42, 43, 44, 45), (11, 12, 13, 14, 45), (41,), (*CHOSEN, 46, 47, 48, 49), REJECTED],
    ids=["other tokens", "another last token", "one token", "a longer one", "the rejected itself"],
)
def test_the_chosen_answer_moves_nothing_of_the_rejected_one(
    poison: tuple[int, ...], engine: str, architecture: str
) -> None:
    model = MODELS[architecture]()
    rejected, prompt = (PAIR.prompt, REJECTED), PAIR.prompt
    before = seen_of(FAST[engine], model, [(prompt, CHOSEN), rejected], 1)
    after = seen_of(FAST[engine], model, [(prompt, poison), rejected], 1)
    assert_same(after, before)
    # And alone it is the same, which says that the one above is not the same for another reason.
    assert_same(before, seen_of(oracle, model, [rejected], 0))


@pytest.mark.parametrize("engine", FAST)
def test_the_rejected_answer_moves_nothing_of_the_chosen_one(engine: str) -> None:
    model, prompt = MODELS["llama"](), PAIR.prompt
    before = seen_of(FAST[engine], model, [(prompt, CHOSEN), (prompt, REJECTED)], 0)
    after = seen_of(FAST[engine], model, [(prompt, CHOSEN), (prompt, (51, 52))], 0)
    assert_same(after, before)


@pytest.mark.parametrize("engine", FAST)
def test_no_token_moves_one_before_it(engine: str) -> None:
    model, prompt = MODELS["llama"](), PAIR.prompt
    found = [
        real(FAST[engine](model, [(prompt, REJECTED), (prompt, answer)])["logprobs"])[1]
        for answer in (CHOSEN, (*CHOSEN[:3], 51, 52))
    ]
    torch.testing.assert_close(found[0][:3], found[1][:3], atol=CLOSE, rtol=0)
    assert float((found[0][3:] - found[1][3:]).detach().abs().min()) > 1e-3, (
        "it moves what is after it"
    )


@pytest.mark.parametrize("engine", FAST)
@pytest.mark.parametrize("place", range(len(BESIDE) + 1))
def test_one_pair_moves_nothing_of_another(place: int, engine: str) -> None:
    model = MODELS["llama"]()

    def seen(pairs: Sequence[TokenPair]) -> list[Any]:
        rows = [(p.prompt, p.chosen) for p in pairs] + [(p.prompt, p.rejected) for p in pairs]
        count = len(pairs)
        kept = [row for row in range(2 * count) if row % count != place]
        return [seen_of(FAST[engine], model, rows, row) for row in kept]

    pairs = [PAIR, *BESIDE]
    changed = list(pairs)
    old = pairs[place]
    changed[place] = TokenPair("poison", (*old.prompt[:-1], 50), (51, 52, 53, 54, 55, 56), (57,))
    for one, other in zip(seen(changed), seen(pairs), strict=True):
        assert_same(one, other)


SHAPES: dict[str, Sequences] = {
    "two pairs of one prompt": [((3, 4), (5, 6)), ((3, 4), (7,)), ((3, 4), (8, 9)), ((3, 4), (6,))],
    "one answer twice": [((3, 4), (5, 6)), ((3, 4), (5, 6))],
    "a prompt of one token": [((3,), (4, 5, 6)), ((3,), (7, 8))],
    "answers of one token": [((3, 4), (5,)), ((3, 4), (6,)), ((3,), (4,))],
    "nothing but single tokens": [((3,), (4,))],
    "answers that begin others": [((3, 4), (5, 6)), ((3, 4), (5, 6, 7)), ((3, 4), (5,))],
    "a prompt that is another with its answer": [((3, 4), (5, 6)), ((3, 4, 5), (6,)), ((3,), (4,))],
    "many answers": [((3, 4, 5), (6 + i, 7, 8 + i)) for i in range(9)],
    "answers of one prompt far apart": [((3, 4), (5,)), ((6,), (7, 8)), ((3, 4), (2, 6))],
}


@pytest.mark.parametrize("architecture", KINDS)
@pytest.mark.parametrize("engine", FAST)
@pytest.mark.parametrize("shape", SHAPES)
def test_sequences_of_any_shape_have_the_numbers_that_they_have_alone(
    shape: str, engine: str, architecture: str
) -> None:
    model, sequences = MODELS[architecture](), SHAPES[shape]
    for row, sequence in enumerate(sequences):
        alone = seen_of(oracle, model, [sequence], 0)
        assert_same(seen_of(FAST[engine], model, sequences, row), alone)


@pytest.mark.parametrize("architecture", [*KINDS, "qwen2"])
def test_a_dense_mask_is_right_for_plain_attention_too(architecture: str) -> None:
    """Which adds the mask to its scores, where the fused kernel takes truth values."""
    model = MODELS[architecture]()
    model.set_attn_implementation("eager")
    sequences = [sequence for some in SHAPES.values() for sequence in some]
    with torch.no_grad():
        found = real(FAST["dense"](model, sequences)["logprobs"])
        for row, sequence in zip(found, sequences, strict=True):
            alone = oracle(model, [sequence])["logprobs"].values[0]
            torch.testing.assert_close(row, alone, atol=CLOSE, rtol=0)


@pytest.mark.parametrize("engine", FAST)
def test_the_order_of_sequences_moves_no_number(engine: str) -> None:
    model = MODELS["llama"]()
    sequences = [sequence for some in SHAPES.values() for sequence in some]
    with torch.no_grad():
        before = real(FAST[engine](model, sequences)["logprobs"])
        after = real(FAST[engine](model, sequences[::-1])["logprobs"])
    for one, other in zip(after[::-1], before, strict=True):
        torch.testing.assert_close(one, other, atol=CLOSE, rtol=0)


@pytest.mark.parametrize("engine", FAST)
def test_each_side_of_a_pair_is_its_own(engine: str) -> None:
    model = MODELS["llama"]()
    with torch.no_grad():
        found = pair_logprobs(FAST[engine], model, [PAIR, *BESIDE])
        for row, pair in enumerate([PAIR, *BESIDE]):
            for side in ("chosen", "rejected"):
                plain = oracle(model, [(pair.prompt, getattr(pair, side))])["logprobs"].values[0]
                mine = real(getattr(found, side))[row]
                torch.testing.assert_close(mine, plain, atol=CLOSE, rtol=0)
