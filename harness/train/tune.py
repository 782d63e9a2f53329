"""The engine of an experiment: chosen once, by rule, check and measurement, for all its cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.token_store import load_pairs, token_counts
from harness.data.tokens import TokenPair
from harness.engine.choice import Choice, choose, longest
from harness.engine.engines import noise_floor
from harness.engine.measure import Measured, Trial, fastest
from harness.errors import GateError
from harness.store.stage import Work
from harness.train import device
from harness.train.gate import LIMITS, ORACLE_PAIRS
from harness.train.parts import micro_batches
from harness.train.policy import adapt, without_dropout
from harness.train.reference import SPLITS
from harness.train.resident import RESIDENCE, Base

Counts: TypeAlias = NDArray[np.int64]
"""Tokens of prompts, chosen and rejected answers, [3, pairs]."""


def choose_engine(work: Work) -> Mapping[str, Any]:
    """Stage: the engine that every later stage of these pairs uses, and what led to it.

    An engine that the model cannot take, or whose log-probs are not the oracle's on sample pairs,
    is replaced by `padded`. With `measure` kernels are measured on a micro-batch of the data and
    the fastest is taken; without it the default is: equal requests then give equal bytes.

    Raises:
        GateError: not even `padded` gives the oracle's log-probs.
    """
    s = work.settings
    device.exactly()
    where = device.device()
    pairs, held_out = (load_pairs(work.inputs["tokens"], split) for split in SPLITS)
    most, times = longest(pairs, held_out), list[Mapping[str, Any]]()
    lent = RESIDENCE.borrowed(work.inputs["policy"], where)
    with lent as base, device.precision(where, s["precision"]):
        model, few = without_dropout(base.shared()), _few(pairs)
        choice = sound(choose(s["engine"], model, most), model, few)
        if s["measure"] and choice.name == "shared":
            choice, times = _measured(s["measure"], base, pairs, choice)
            choice = sound(choice, model, few)
        floor = noise_floor(choice.engine, model, few, math.inf)
    choice.save(work.out)
    return {
        "engine": choice.sentence, "choice": asdict(choice), "noise_floor": floor,
        "padded_tokens": _ratio(token_counts(pairs)), "measured": times, **device.facts(where),
    }  # fmt: skip


def _measured(
    s: Mapping[str, Any], base: Base, pairs: Sequence[TokenPair], choice: Choice
) -> tuple[Choice, Measured]:
    """The fastest on a micro-batch of the data, with the model as cells train it."""
    model = base.shared() if s["lora"] else base.own()
    model = without_dropout(adapt(model, s["lora"], s["seed"]))
    first = micro_batches(pairs[: s["pairs_per_step"]], s["micro_pairs"], s["micro_tokens"])[0]
    trial = Trial(model, [pairs[row] for row in first])
    return fastest(trial, choice, len(pairs) * s["epochs"] // len(first))


def sound(choice: Choice, model: Any, few: Sequence[TokenPair]) -> Choice:
    """The choice, or `padded` where its log-probs of these pairs are not the oracle's.

    Asked in fp32, whatever the precision: in bf16 rounding could hide a leak.

    Raises:
        GateError: `padded` is not right either.
    """
    limit = LIMITS["fp32"]["oracle"]
    with torch.autocast(model.device.type, enabled=False):
        try:
            noise_floor(choice.engine, model, few, limit)
        except GateError as error:
            if choice.name != "shared":
                raise
            choice = Choice("padded", why=str(error), longest=choice.longest)
            noise_floor(choice.engine, model, few, limit)
    return choice


def _few(pairs: Sequence[TokenPair]) -> list[TokenPair]:
    """Pairs for the check with the oracle: the longest one, then the first ones."""
    rows = [int(token_counts(pairs).sum(0).argmax()), *range(min(ORACLE_PAIRS, len(pairs)))]
    return [pairs[row] for row in dict.fromkeys(rows)][:ORACLE_PAIRS]


def _ratio(counts: Counts) -> float:
    """Tokens of the prompts twice over tokens of the prompts once: what `padded` costs at least."""
    prompt, chosen, rejected = counts.sum(1)
    return float((2 * prompt + chosen + rejected) / (prompt + chosen + rejected))
