"""The linear head: the numbers and slopes of a plain log-softmax, and what is held for them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from harness.engine.engines import oracle, padded, shared
from harness.engine.head import Head
from harness.engine.linear_head import Tiling, linear_logprobs
from harness.train.device import precision

from .models import CPU, some_pairs, tiny

TOKENS, WIDTH, VOCABULARY = 23, 8, 19
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
# Tokens of a tile and tokens whose probabilities are kept: no multiple of another.
TILINGS = {
    "one tile": (100, 100),
    "tiles": (5, 100),
    "recomputed": (100, 7),
    "recomputed in tiles": (3, 7),
    "one token at a time": (1, 1),
}


@dataclass(frozen=True)
class Case:
    """A head and what goes into it; `slopes` is how much each log-prob counts."""

    hidden: Tensor
    targets: Tensor
    weight: Tensor
    bias: Tensor | None
    slopes: Tensor

    @classmethod
    def made(cls, *, trained: bool = True, bias: bool = False, dtype: Any = torch.float32) -> Case:
        draw = torch.Generator().manual_seed(0)

        def normal(*shape: int) -> Tensor:
            return torch.randn(shape, generator=draw).to(dtype)

        targets = torch.randint(0, VOCABULARY, (TOKENS,), generator=draw)
        targets[:6] = 4  # one row of the weights is wanted several times
        return cls(
            normal(TOKENS, WIDTH).requires_grad_(), targets,
            normal(VOCABULARY, WIDTH).requires_grad_(trained),
            normal(VOCABULARY).requires_grad_(trained) if bias else None,
            torch.randn(TOKENS, generator=draw),
        )  # fmt: skip

    @property
    def leaves(self) -> list[Tensor]:
        given = (self.hidden, self.weight, self.bias)
        return [x for x in given if x is not None and x.requires_grad]

    def found(self, tiling: Tiling) -> tuple[Tensor, list[Tensor]]:
        """Log-probs and the slopes of their weighted sum."""
        (logp,) = linear_logprobs(self.hidden, self.targets, self.weight, self.bias, tiling)
        return logp, list(torch.autograd.grad(logp, self.leaves, self.slopes))

    def plain(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, list[Tensor]]:
        """The same by autograd: logits in the given dtype, the rest in fp32."""
        weight, bias = self.weight.to(dtype), None if self.bias is None else self.bias.to(dtype)
        logits = nn.functional.linear(self.hidden.to(dtype), weight, bias)
        logp = logits.float().log_softmax(-1).gather(1, self.targets[:, None]).squeeze(1)
        return logp, list(torch.autograd.grad(logp, self.leaves, self.slopes))


def tiling(name: str = "one tile", dtype: str = "fp32", also: Any = ()) -> Tiling:
    return Tiling(*TILINGS[name], DTYPES[dtype], also)


def off(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> float:
    """Largest distance relative to the size of each, over all of them."""
    return max(
        float((a.detach().float() - b.detach().float()).norm() / b.detach().float().norm())
        for a, b in zip(found, wanted, strict=True)
    )


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("name", TILINGS)
def test_values_and_slopes_are_those_of_a_plain_log_softmax(
    name: str, trained: bool, bias: bool
) -> None:
    case = Case.made(trained=trained, bias=bias)
    logp, slopes = case.found(tiling(name))
    wanted, expected = case.plain()
    assert logp.dtype == torch.float32
    torch.testing.assert_close(logp, wanted, atol=1e-6, rtol=0)
    assert len(slopes) == 1 + trained * (1 + bias)
    for slope, want in zip(slopes, expected, strict=True):
        torch.testing.assert_close(slope, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("weights", ["fp32", "bf16"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("name", TILINGS)
def test_in_bf16_it_is_no_further_from_the_truth_than_autograd_is(
    name: str, trained: bool, bias: bool, weights: str
) -> None:
    """The truth is the fp32 head of the same numbers; weights in fp32 are autocast's case."""
    case = Case.made(trained=trained, bias=bias, dtype=DTYPES[weights])
    exact = Case(*(
        None if x is None else (x.detach().float().requires_grad_(x.requires_grad)
        if x.is_floating_point() else x)
        for x in (case.hidden, case.targets, case.weight, case.bias, case.slopes)
    ))  # fmt: skip
    (truth, true_slopes), (logp, slopes) = exact.plain(), case.found(tiling(name, "bf16"))
    plain, plain_slopes = case.plain(torch.bfloat16)
    assert logp.dtype == torch.float32
    assert off([logp], [truth]) <= 1.5 * off([plain], [truth])
    # A slope is rounded a few times, in another place than autograd's is.
    assert off(slopes, true_slopes) <= 2 * off(plain_slopes, true_slopes)
    assert [slope.dtype for slope in slopes] == [leaf.dtype for leaf in case.leaves]


def sure(wanted: float, *, bias: bool = False) -> Case:
    """A trained head whose targets have this probability, each."""
    draw = torch.Generator().manual_seed(0)
    weight = torch.randn(64, 32, generator=draw)
    targets = torch.randint(0, 64, (TOKENS,), generator=draw)
    offset = 0.1 * torch.randn(64, generator=draw) if bias else torch.zeros(64)
    least, most = torch.zeros(TOKENS, 1), torch.full((TOKENS, 1), 3.0)
    for _ in range(40):
        middle = (least + most) / 2
        p = (weight[targets] * middle @ weight.T + offset).softmax(-1).gather(1, targets[:, None])
        least, most = torch.where(p < wanted, middle, least), torch.where(p < wanted, most, middle)
    return Case(
        (weight[targets] * middle).requires_grad_(), targets, weight.requires_grad_(),
        offset.requires_grad_() if bias else None, torch.rand(TOKENS, generator=draw) + 0.5,
    )  # fmt: skip


def frozen(case: Case) -> Case:
    bias = None if case.bias is None else case.bias.detach()
    return replace(case, weight=case.weight.detach(), bias=bias)


@pytest.mark.parametrize("also", [(), (lambda logp: (2 * logp).logsumexp(-1),)])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", TILINGS)
@pytest.mark.parametrize("wanted", [0.9, 0.99, 0.999, 0.9999])
def test_the_slope_of_a_token_that_the_model_is_sure_of_is_not_rounded_away(
    wanted: float, name: str, bias: bool, also: Any
) -> None:
    """In bf16 such a probability is 1: what is left of it must be taken before it is narrowed."""
    for case in (whole := sure(wanted, bias=bias), frozen(whole)):
        sizes = replace(tiling(name, "bf16"), also=also)
        logp, *_ = linear_logprobs(case.hidden, case.targets, case.weight, case.bias, sizes)
        slopes = torch.autograd.grad(logp, case.leaves, case.slopes)
        truth, exact = case.plain()
        # The logits themselves are rounded, which moves 1 - p: no slope can be nearer than that.
        rounded = case.plain(torch.bfloat16)[1]
        assert float(truth.detach().exp().mean()) == pytest.approx(wanted, abs=1e-4)
        assert off(slopes, exact) <= 1.5 * off(rounded, exact) + 0.01


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what the compiler says to itself
def test_compiled_sums_give_the_same_slopes() -> None:
    for wanted, dtype in ((0.5, "fp32"), (0.9999, "bf16")):
        case = sure(wanted, bias=True)
        for name in ("one tile", "recomputed in tiles"):
            plain, compiled = tiling(name, dtype), replace(tiling(name, dtype), compiled=True)
            close = {"fp32": 1e-5, "bf16": 1e-2}[dtype]
            assert off(case.found(compiled)[1], case.found(plain)[1]) <= close


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("trained", [False, True])
def test_tiles_change_nothing(trained: bool, dtype: str) -> None:
    case = Case.made(trained=trained, bias=True)
    wanted, expected = case.found(tiling("one tile", dtype))
    for name in TILINGS:
        logp, slopes = case.found(tiling(name, dtype))
        torch.testing.assert_close(logp, wanted, atol=1e-6, rtol=0)
        # Sums over tokens are cut elsewhere: in bf16 each piece is rounded by itself.
        close = {"fp32": 1e-6, "bf16": 1e-2}[dtype]
        assert off(slopes, expected) <= close, name


@pytest.mark.parametrize("trained", [False, True])
def test_without_a_gradient_the_numbers_are_the_same(trained: bool) -> None:
    case = Case.made(trained=trained, bias=True)
    for name in TILINGS:
        with torch.no_grad():
            (logp,) = linear_logprobs(
                case.hidden, case.targets, case.weight, case.bias, tiling(name)
            )
        assert not logp.requires_grad
        torch.testing.assert_close(logp, case.plain()[0], atol=1e-6, rtol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_autocast_around_both_passes_changes_nothing(trained: bool, bias: bool, dtype: str) -> None:
    """As in a training run: its backward passes are within the context too."""
    case = Case.made(trained=trained, bias=bias)
    for name in ("one tile", "recomputed in tiles"):
        logp, slopes = case.found(tiling(name, dtype))
        with precision(CPU, "bf16"):
            within, also = case.found(tiling(name, dtype))
        assert torch.equal(within, logp)
        assert all(torch.equal(one, other) for one, other in zip(also, slopes, strict=True))


def test_a_frozen_head_gives_its_weights_no_slope() -> None:
    case = Case.made(trained=False, bias=True)
    (logp,) = linear_logprobs(case.hidden, case.targets, case.weight, case.bias, tiling("tiles"))
    logp.backward(case.slopes)
    assert case.weight.grad is None
    assert case.bias is not None
    assert case.bias.grad is None
    assert case.hidden.grad is not None


def test_a_bias_alone_is_trained_too() -> None:
    case = Case.made(trained=False, bias=True)
    assert case.bias is not None
    case.bias.requires_grad_()
    for name in TILINGS:
        _, slopes = case.found(tiling(name))
        for slope, want in zip(slopes, case.plain()[1], strict=True):
            torch.testing.assert_close(slope, want, atol=1e-5, rtol=1e-5)


def test_weights_are_trained_under_states_that_carry_no_gradient() -> None:
    case = Case.made()
    case.hidden.requires_grad_(False)
    _, slopes = case.found(tiling("recomputed"))
    assert len(slopes) == 1
    torch.testing.assert_close(slopes[0], case.plain()[1][0], atol=1e-5, rtol=1e-5)


def test_other_numbers_are_of_every_token_and_carry_no_gradient() -> None:
    case = Case.made()
    wanted = (
        lambda logp: (2 * logp).logsumexp(-1),
        lambda logp: -(logp.exp() * logp).sum(-1),
    )
    whole = nn.functional.linear(case.hidden, case.weight).log_softmax(-1)
    for name in TILINGS:
        logp, *others = linear_logprobs(
            case.hidden, case.targets, case.weight, None, tiling(name, also=wanted)
        )
        assert logp.requires_grad
        for number, function in zip(others, wanted, strict=True):
            assert not number.requires_grad
            torch.testing.assert_close(number, function(whole).detach(), atol=1e-5, rtol=0)
        # What else is wanted leaves the slopes alone.
        slopes = torch.autograd.grad(logp, case.leaves, case.slopes)
        for slope, want in zip(slopes, case.plain()[1], strict=True):
            torch.testing.assert_close(slope, want, atol=1e-5, rtol=1e-5)


# Through the head of a model


HEADS = {
    "plain": {},
    "scaled": {"scale": 0.25},
    "capped": {"soft_cap": 1.5},
    "scaled and capped": {"scale": 3.0, "soft_cap": 1.5},
}


@pytest.mark.parametrize("tile", [VOCABULARY, 5 * VOCABULARY, 2**22])
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", HEADS)
def test_a_head_of_any_kind_is_the_formula(kind: str, bias: bool, trained: bool, tile: int) -> None:
    case = Case.made(bias=bias, trained=trained)
    linear = nn.Linear(WIDTH, VOCABULARY, bias=bias).requires_grad_(trained)
    linear.weight.data.copy_(case.weight.detach())
    if case.bias is not None:
        linear.bias.data.copy_(case.bias.detach())
    leaves = [case.hidden, *(p for p in linear.parameters() if p.requires_grad)]
    found = Head(linear, VOCABULARY, tile=tile, **HEADS[kind]).columns(
        case.hidden, case.targets, ("confidence", "entropy")
    )
    logits = linear(case.hidden) * HEADS[kind].get("scale", 1.0)
    if cap := HEADS[kind].get("soft_cap"):
        logits = cap * torch.tanh(logits / cap)
    logp = logits.log_softmax(-1)
    picked = logp.gather(1, case.targets[:, None]).squeeze(1)
    torch.testing.assert_close(found["logprobs"], picked, atol=1e-6, rtol=0)
    p = logp.exp().detach()
    torch.testing.assert_close(found["confidence"], p.square().sum(-1).log(), atol=1e-5, rtol=0)
    entropy = -(p * p.log()).sum(-1) / math.log(VOCABULARY)
    torch.testing.assert_close(found["entropy"], entropy, atol=1e-5, rtol=0)
    slopes = torch.autograd.grad(found["logprobs"], leaves, case.slopes)
    wanted = torch.autograd.grad(picked, leaves, case.slopes)
    for slope, want in zip(slopes, wanted, strict=True):
        torch.testing.assert_close(slope, want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("engine", [padded, shared])
def test_tied_embeddings_gather_both_slopes(engine: Any) -> None:
    """What the head gives to the weights and what the look-up gives are one sum."""
    tied, untied = tiny("llama, tied"), tiny("llama")
    untied.load_state_dict({**tied.state_dict(), "lm_head.weight": tied.lm_head.weight})
    sequences = [(pair.prompt, pair.chosen) for pair in some_pairs(4)]
    for model in (tied, untied):
        engine(model, sequences)["logprobs"].total().sum().backward()
    both = untied.lm_head.weight.grad + untied.model.embed_tokens.weight.grad
    assert float(untied.lm_head.weight.grad.abs().max()) > 1
    assert float(untied.model.embed_tokens.weight.grad.abs().max()) > 1
    torch.testing.assert_close(tied.lm_head.weight.grad, both, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ["llama, tied", "llama", "phi, head with a bias"])
def test_a_model_that_is_sure_of_its_answers_learns_from_them_in_bf16(architecture: str) -> None:
    """Its slopes are no further from those in fp32 than autograd's through the same model are."""
    model, ids = tiny(architecture), (3, 4, 5, 6, 7, 8, 9, 10)
    optimizer = torch.optim.AdamW(model.parameters(), 5e-3)
    sequences = [(ids[:3], ids[3:])]

    def slopes(engine: Any, kind: str) -> list[Tensor]:
        model.zero_grad()
        with precision(CPU, kind):
            engine(model, sequences)["logprobs"].total().sum().backward()
        return [torch.cat([p.grad.flatten().clone() for p in model.parameters()])]

    while float(oracle(model, sequences)["logprobs"].values.detach().exp().min()) < 0.999:
        optimizer.zero_grad()
        (-oracle(model, sequences)["logprobs"].total().sum()).backward()
        optimizer.step()
    exact = slopes(oracle, "fp32")
    assert off(slopes(shared, "bf16"), exact) <= 1.5 * off(slopes(oracle, "bf16"), exact)


# What is held


MANY, WIDE = 96, 512
"""Tokens and vocabulary in which nothing else can be taken for their product."""


@dataclass
class Watched(TorchDispatchMode):
    """The largest results, in elements, of every operation while it lasts, by dtype."""

    largest: dict[torch.dtype, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for x in tree_leaves(found):
            if isinstance(x, Tensor):
                self.largest[x.dtype] = max(self.largest.get(x.dtype, 0), x.numel())
        return found


@contextmanager
def kept() -> Iterator[list[Tensor]]:
    """What autograd saves for the backward pass."""
    saved: list[Tensor] = []

    def pack(x: Tensor) -> Tensor:
        saved.append(x)
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        yield saved


def large(trained: bool) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(MANY, WIDTH, generator=draw).requires_grad_()
    weight = torch.randn(WIDE, WIDTH, generator=draw).requires_grad_(trained)
    return hidden, torch.randint(0, WIDE, (MANY,), generator=draw), weight


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_never_more_than_a_tile_of_logits_is_in_fp32(dtype: str, frozen: bool) -> None:
    hidden, targets, weight = large(not frozen)
    sizes = Tiling(8, 24, DTYPES[dtype])
    with Watched() as watched:
        (logp,) = linear_logprobs(hidden, targets, weight, None, sizes)
        logp.sum().backward()
    # Logits in fp32: a tile. Probabilities in the dtype of the products: what is to be kept.
    most = max(8 * WIDE, MANY * WIDTH, WIDE * WIDTH)
    if dtype == "bf16":
        assert watched.largest[torch.float32] == most
        assert watched.largest[torch.bfloat16] == 24 * WIDE
    else:
        assert watched.largest[torch.float32] == 24 * WIDE


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_frozen_head_keeps_one_state_per_token(dtype: str) -> None:
    hidden, targets, weight = large(trained=False)
    with kept() as saved:
        linear_logprobs(hidden, targets, weight, None, Tiling(8, 1000, DTYPES[dtype]))
    assert sum(x.numel() for x in saved) == MANY * WIDTH


def test_a_trained_head_keeps_probabilities_in_the_narrow_dtype_and_no_logits() -> None:
    hidden, targets, weight = large(trained=True)
    with kept() as saved:
        linear_logprobs(hidden, targets, weight, None, Tiling(8, MANY, torch.bfloat16))
    assert [x.dtype for x in saved if x.numel() == MANY * WIDE] == [torch.bfloat16]
    assert sum(x.numel() for x in saved) == MANY * (WIDE + WIDTH + 1)


def test_a_trained_head_keeps_no_probabilities_where_they_are_too_many() -> None:
    hidden, targets, weight = large(trained=True)
    with kept() as saved:
        linear_logprobs(hidden, targets, weight, None, Tiling(8, MANY - 1, torch.bfloat16))
    assert sum(x.numel() for x in saved) == MANY * (WIDTH + 1)


@pytest.mark.parametrize("engine", [padded, shared])
def test_an_engine_holds_no_logits_of_a_whole_batch_in_fp32(engine: Any) -> None:
    """Through a model, in bf16: between its ends nothing is as large as tokens x vocabulary."""
    model = tiny("llama", vocab_size=WIDE)
    sequences = [((3, 4), tuple(range(5 + row, 25 + row))) for row in range(20)]
    small = type(engine)(engine.trunk, tile=16 * WIDE)
    with Watched() as watched, precision(CPU, "bf16"):
        small(model, sequences)["logprobs"].total().sum().backward()
    tokens = sum(len(answer) for _, answer in sequences)
    assert watched.largest[torch.bfloat16] == tokens * WIDE
    assert watched.largest[torch.float32] < tokens * WIDE / 4
