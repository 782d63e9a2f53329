"""What an engine of vLLM is started with, what it is asked, and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness.data.tokens import Ids
from harness.errors import RequestError

RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""Ranks that vLLM makes room for; an adapter may have a smaller one."""

SPARE = 1
"""Slots for adapters that none is ever put into. A request without an adapter, in a batch with one
that has, gets from vLLM 0.32 whatever weights the last slot holds or has held, without a word."""


@dataclass(frozen=True)
class Setup:
    """What an engine is started with.

    Attributes:
        model: folder of the weights.
        dtype: "float32" or "bfloat16": of weights and activations.
        longest: tokens of a prompt with its answer.
        lora_rank: of the adapters that may come; 0: none will.
        python: interpreter of an environment with vLLM; None: this one.
        memory: the share of a GPU's memory that it may take.
        adapters: how many different ones the requests of one call may name.
    """

    model: Path
    dtype: str
    longest: int
    lora_rank: int = 0
    python: str | None = None
    memory: float = 0.9
    adapters: int = 1


@dataclass(frozen=True)
class Request:
    """One answer that is wanted; temperature 0 is greedy, without an adapter it is the base's."""

    ids: Ids
    temperature: float = 0.0
    seed: int = 0
    adapter: Path | None = None


class Answer(NamedTuple):
    """Ids of an answer, the one that ended it included, and their log-probs where asked for.

    Log-probs are of the model's own distribution, before temperature, in nats.
    """

    ids: Ids
    logprobs: tuple[float, ...] | None


def room(rank: int) -> int:
    """The rank that vLLM must make room for.

    Raises:
        RequestError: no vLLM serves adapters of this rank.
    """
    if rank > RANKS[-1]:
        raise RequestError(
            f"vLLM serves adapters up to rank {RANKS[-1]}, and budget.lora.rank is {rank}: lower "
            "it, or set generation.backend = transformers"
        )
    return next(each for each in RANKS if each >= rank) if rank else 0


def first_words(setup: Setup) -> dict[str, Any]:
    """The message that its process waits for."""
    return {
        "model": str(setup.model.resolve()), "dtype": setup.dtype, "longest": setup.longest,
        "lora_rank": room(setup.lora_rank), "lora_slots": setup.adapters + SPARE,
        "memory": setup.memory,
    }  # fmt: skip
