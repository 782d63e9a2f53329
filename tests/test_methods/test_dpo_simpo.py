"""DPO and SimPO: closed forms, sums against means."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import softplus

from .numbers import (
    FIXTURE,
    batch,
    close,
    evaluate,
    gaps,
    gradients,
    load_method,
    plain_dpo,
    wide,
)


def plain_simpo(n: Any, beta: float = 2.0, gamma: Any = 1.0) -> tuple[Tensor, Tensor, Tensor]:
    z = beta * gaps(n)[0] - gamma
    slope = beta * torch.sigmoid(-z)
    return softplus(-z), -slope / wide(n["Lw"]), slope / wide(n["Ll"])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("name", "plain", "settings"),
    [
        ("dpo", plain_dpo, {}),
        ("dpo", plain_dpo, {"beta": 0.7}),
        ("simpo", plain_simpo, {}),
        ("simpo", plain_simpo, {"beta": 3.0, "gamma": 0.2}),
    ],
)
def test_losses_and_gradients_are_those_of_the_closed_form(
    name: str, plain: Any, settings: dict[str, Any], seed: int
) -> None:
    numbers = batch(seed=seed)
    for actual, expected in zip(
        gradients(name, settings, **numbers), plain(numbers, **settings), strict=True
    ):
        close(actual, expected, 1e-12)


def test_dpo_is_log_2_at_the_reference_with_half_the_slope() -> None:
    n = batch()
    at = {**n, "rw": n["sw"], "rl": n["sl"]}
    losses, chosen, rejected = gradients("dpo", {"beta": 0.3}, **at)
    assert load_method("dpo").at_reference == math.log(2)
    close(losses, [math.log(2)] * 12, 1e-15)
    close(chosen, [-0.15] * 12, 1e-15)
    close(rejected, [0.15] * 12, 1e-15)


def test_dpo_sums_over_tokens_and_simpo_takes_means() -> None:
    # Every token twice: the sums double, the means stay.
    twice = {key: 2 * wide(FIXTURE[key]) for key in ("sw", "sl", "rw", "rl", "Lw", "Ll")}
    close(evaluate("dpo", {"beta": 0.05}, **twice), evaluate("dpo", {"beta": 0.1}))
    close(evaluate("simpo", **twice), evaluate("simpo"))
    close(evaluate("alphadpo", **twice), evaluate("alphadpo"))


def test_simpo_reads_no_reference_and_its_gamma_stands_outside_beta() -> None:
    assert load_method("simpo").reads == ("policy",)
    u = gaps(FIXTURE)[0]
    close(evaluate("simpo", {"beta": 10.0, "gamma": 3.0}), softplus(-10 * (u - 0.3)))
