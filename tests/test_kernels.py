"""Attention in blocks: what dense attention gives under the same mask, values and gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from harness.engine.branches import Layout, Sequences, lay_out
from harness.engine.engines import Batched, largest_difference, pair_logprobs
from harness.engine.kernels import BLOCKS, attend_in_blocks, attending
from harness.engine.trunks import TRUNKS, backbone, block_states

from .models import CPU, some_pairs, tiny

# Three answers of a prompt, a prompt of one token, one answer alone, answers of one token.
SEQUENCES: Sequences = [
    ((3, 4, 5), (6, 7, 8)),
    ((3, 4, 5), (9,)),
    ((6,), (7, 8)),
    ((3, 4, 5), (6, 7)),
    ((9, 8, 7, 6), (1, 2)),
]
HEADS = [(2, 2), (4, 2), (3, 1)]
"""Heads of queries and of keys."""


@pytest.fixture(scope="module")
def layout() -> Layout:
    return lay_out(SEQUENCES, CPU)


def some(layout: Layout, heads: tuple[int, int], dtype: torch.dtype) -> list[Tensor]:
    draw = torch.Generator().manual_seed(0)
    counts = (heads[0], heads[1], heads[1])
    shapes = [(1, count, len(layout.ids), 4) for count in counts]
    found = [torch.randn(shape, generator=draw, dtype=torch.float64) for shape in shapes]
    return [x.to(dtype).requires_grad_() for x in found]


def dense(q: Tensor, k: Tensor, v: Tensor, layout: Layout, *, scale: float, cap: Any) -> Tensor:
    """Attention by its definition, [1, tokens, heads, width]."""
    every = torch.arange(q.shape[2])
    mask = layout.sees(every[:, None], every[None, :])
    k, v = (x.repeat_interleave(q.shape[1] // k.shape[1], 1) for x in (k, v))
    scores = q @ k.transpose(2, 3) * scale
    if cap is not None:
        scores = torch.tanh(scores / cap) * cap
    return (scores.masked_fill(~mask, -torch.inf).softmax(-1) @ v).transpose(1, 2)


@pytest.mark.parametrize("cap", [None, 0.7])
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("heads", HEADS)
def test_blocks_are_dense_attention_under_the_same_mask(
    layout: Layout, heads: tuple[int, int], scale: float | None, cap: float | None
) -> None:
    """In fp64, so that a term that is left out cannot hide in rounding."""
    q, k, v = some(layout, heads, torch.float64)
    found, none = attend_in_blocks(None, q, k, v, None, scaling=scale, softcap=cap, layout=layout)
    expected = dense(q, k, v, layout, scale=scale or 4**-0.5, cap=cap)
    assert none is None
    assert found.shape == (1, len(layout.ids), heads[0], 4)
    torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(1)).double()
    slopes = torch.autograd.grad((found * weights).sum(), (q, k, v))
    wanted = torch.autograd.grad((expected * weights).sum(), (q, k, v))
    # Keys gather their slopes in fp32: that is what they are right to.
    torch.testing.assert_close(slopes[0], wanted[0], atol=1e-12, rtol=0)
    for slope, want in zip(slopes[1:], wanted[1:], strict=True):
        torch.testing.assert_close(slope, want, atol=1e-5, rtol=0)


@pytest.mark.parametrize("cap", [None, 0.7])
def test_the_gradient_is_that_of_finite_differences(layout: Layout, cap: float | None) -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend_in_blocks(None, q, k, v, None, softcap=cap, layout=layout)[0]

    few = tuple(some(layout, (2, 1), torch.float64))
    assert torch.autograd.gradcheck(attend, few, atol=1e-5, fast_mode=True)


def test_a_slope_of_a_shared_prompt_is_not_rounded_as_it_grows() -> None:
    """Of six hundred branches: a sum in bf16 stands still long before the last of them."""
    drawn = [((3, 4), (5 + i,)) for i in range(600)]
    row = lay_out(drawn, CPU)
    wide = some(row, (1, 1), torch.float32)
    narrow = [x.detach().bfloat16().requires_grad_() for x in wide]
    slopes = []
    for inputs in (wide, narrow):
        found, _ = attend_in_blocks(None, *inputs, None, layout=row)
        # The same pull of every branch, so that the prompt's slope is a long sum of equal signs.
        slopes.append(torch.autograd.grad(found.float().sum(), inputs[2])[0].float())
    prompt = row.branch == 0
    exact, rounded = (slope[0, 0, prompt] for slope in slopes)
    assert float(exact.min()) > 200
    torch.testing.assert_close(rounded, exact, rtol=5e-3, atol=0)


def test_queries_of_a_wider_dtype_meet_narrow_values(layout: Layout) -> None:
    """Rotary embeddings are in fp32; the products are in the dtype of the values."""
    q, k, v = some(layout, (2, 1), torch.float32)
    found, _ = attend_in_blocks(None, q, k, v.bfloat16(), None, layout=layout)
    exact = dense(q, k, v, layout, scale=0.5, cap=None)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), exact, atol=0.05, rtol=0.05)
    slopes = torch.autograd.grad(found.float().sum(), (q, k))
    for slope, want in zip(slopes, torch.autograd.grad(exact.sum(), (q, k)), strict=True):
        assert slope.dtype == torch.float32
        torch.testing.assert_close(slope, want, atol=0.1, rtol=0.05)


def test_autocast_around_both_passes_changes_nothing(layout: Layout) -> None:
    """As in a training run: its backward passes are within the context too."""
    q, k, v = some(layout, (2, 1), torch.float32)

    def attend() -> list[Tensor]:
        found, _ = attend_in_blocks(None, q, k, v, None, layout=layout)
        return [found, *torch.autograd.grad(found.square().sum(), (q, k, v))]

    plain = attend()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        within = attend()
    for one, other in zip(within, plain, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


# What blocks do not have


@pytest.mark.parametrize("name", ["s_aux", "position_bias", "alibi", "head_mask"])
def test_what_blocks_do_not_have_is_refused_by_name(layout: Layout, name: str) -> None:
    q, k, v = some(layout, (2, 1), torch.float32)
    with pytest.raises(NotImplementedError, match=rf"attention in blocks does not know {name}"):
        attend_in_blocks(None, q, k, v, None, layout=layout, **{name: torch.ones(2)})
    attend_in_blocks(None, q, k, v, None, layout=layout, **{name: None})


def test_dropout_a_mask_and_a_missing_layout_are_refused(layout: Layout) -> None:
    q, k, v = some(layout, (2, 1), torch.float32)
    with pytest.raises(NotImplementedError, match="dropout"):
        attend_in_blocks(None, q, k, v, None, layout=layout, dropout=0.1)
    with pytest.raises(NotImplementedError, match="mask"):
        attend_in_blocks(None, q, k, v, torch.zeros(1, 1, 1, 1), layout=layout)
    with pytest.raises(NotImplementedError, match="no layout"):
        attend_in_blocks(None, q, k, v, None)


def test_a_model_that_drops_out_is_refused_in_training() -> None:
    model = tiny(attention_dropout=0.3).train()
    with pytest.raises(NotImplementedError, match="dropout"):
        block_states(backbone(model), SEQUENCES)


# Switching it on


def test_the_model_attends_through_a_kernel_for_as_long_as_it_lasts() -> None:
    body = backbone(tiny())
    own = body.config._attn_implementation
    assert own != BLOCKS
    with attending(body, BLOCKS):
        assert body.config._attn_implementation == BLOCKS
        assert body.layers[0].self_attn.config._attn_implementation == BLOCKS
    assert body.config._attn_implementation == own


def test_its_own_attention_comes_back_after_an_error() -> None:
    body = backbone(tiny())
    own = body.config._attn_implementation
    with pytest.raises(RuntimeError, match="lost"), attending(body, BLOCKS):
        raise RuntimeError("lost")
    assert body.config._attn_implementation == own
    broken = tiny(attention_dropout=0.3).train()
    with pytest.raises(NotImplementedError):
        block_states(backbone(broken), SEQUENCES)
    assert backbone(broken).config._attn_implementation == own
    broken(input_ids=torch.tensor([[3, 4, 5]]))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what the compiler says to itself
def test_flex_attention_sees_what_blocks_see() -> None:
    """Its forward pass; it has a backward pass on GPUs alone."""
    model, pairs = tiny(), some_pairs(4)
    with torch.no_grad():
        plain = pair_logprobs(Batched(TRUNKS["blocks"]), model, pairs)
        found = pair_logprobs(Batched(TRUNKS["flex"]), model, pairs)
    assert largest_difference(plain, found) < 1e-5
