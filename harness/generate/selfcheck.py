"""Whether another engine has the same model: its greedy answers, as the model here sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.tokens import Ids

PROMPTS = 4
TOKENS = 16
"""How much is tried: a few answers of this length."""

TOLERANCE = {"fp32": 1e-3, "bf16": 0.15}
"""Nats by which the log-probs of a token may differ; bf16 rounds what one engine keeps in fp32."""

CLEAR = 4.0
"""What is so many times nearer to the base than the adapter has moved the policy is the base."""


@dataclass(frozen=True)
class Tried:
    """One greedy answer of the other engine; `logprobs` are None where it gives none."""

    prompt: Ids
    ids: Ids
    logprobs: tuple[float, ...] | None


@dataclass(frozen=True)
class Agreement:
    """How far the other engine is from the model in this process, in nats per token.

    Attributes:
        logprobs: the largest difference of log-probs; None where the other gave none.
        greedy: how far the tokens that it took are below the likeliest, at most.
        effect: of the adapter on these log-probs, root mean square; 0 without one.
        to_base: how far the other is from the model without its adapter, likewise.
    """

    logprobs: float | None
    greedy: float
    effect: float = 0.0
    to_base: float = 0.0

    def trouble(self, precision: str) -> str | None:
        """What is wrong, as the end of a sentence."""
        most = TOLERANCE[precision]
        if self.logprobs is not None and CLEAR * self.to_base < self.effect:
            return f"answers as the base does, and the adapter moves it by {self.effect:.2g} nats"
        if self.logprobs is not None and not self.logprobs <= most:
            return f"gives log-probs that differ by up to {self.logprobs:.2g} nats (at most {most})"
        if not self.greedy <= most:
            return f"takes tokens that are {self.greedy:.2g} nats below the likeliest"
        return None

    @property
    def sentence(self) -> str:
        """For the manifest."""
        seen = "no log-probs to compare" if self.logprobs is None else f"{self.logprobs:.1e} nats"
        moved = f"; the adapter moves them by {self.effect:.1e}" if self.effect else ""
        return f"log-probs agree with transformers: {seen}; greedy: {self.greedy:.1e}{moved}"


def samples(prompts: Sequence[Ids]) -> list[Ids]:
    """The prompts that are tried: the shortest, the longest and some between."""
    order = sorted(set(prompts), key=lambda prompt: (len(prompt), prompt))
    rows = np.linspace(0, len(order) - 1, min(PROMPTS, len(order))).round().astype(int)
    return [order[row] for row in rows]


def compare(tried: Sequence[Tried], model: Any, base: Any = None) -> Agreement:
    """The other engine's greedy answers, seen by the model in this process.

    Args:
        tried: its answers to `samples`.
        model: that should have given them, without dropout; read in plain passes.
        base: the model without its adapter, where it has one.
    """
    seen = [_seen(model, one) for one in tried]
    own, best = (np.concatenate(rows) for rows in zip(*seen, strict=True))
    greedy = float((best - own).max())
    if any(one.logprobs is None for one in tried):
        return Agreement(None, greedy)
    theirs = np.array([value for one in tried for value in one.logprobs or ()])
    off = float(np.abs(theirs - own).max())
    if base is None:
        return Agreement(off, greedy)
    plain = np.concatenate([_seen(base, one)[0] for one in tried])
    return Agreement(off, greedy, effect=_rms(own - plain), to_base=_rms(theirs - plain))


@torch.no_grad()
def _seen(model: Any, one: Tried) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Log-probs of the tokens taken, and of the likeliest ones in their places."""
    ids = torch.tensor([one.prompt + one.ids], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(one.prompt) - 1 : -1]
    logprobs = logits.double().log_softmax(-1)
    taken = logprobs.gather(-1, ids[0, len(one.prompt) :, None])[:, 0]
    return taken.cpu().numpy(), logprobs.amax(-1).cpu().numpy()


def _rms(values: NDArray[np.float64]) -> float:
    return float(np.sqrt(np.mean(np.square(values))))
