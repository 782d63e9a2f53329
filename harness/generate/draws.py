"""Random numbers of a completion: a function of seed, prompt, sample, step and token, nothing else.

So a completion does not hang on its batch, on what else is asked, or on the order of the work, and
two policies are drawn from with the same numbers: where they nearly agree they write the same text,
and their difference is measured with less noise. For that the draw is Gumbel's (the likeliest token
after independent noise on every logit) and not one uniform number per token: there a small change
of one probability moves the borders of all tokens behind it, here it changes few that are drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

BLOCK = {"cpu": 1 << 17, "cuda": 1 << 24}
"""Logits that get their noise at once: on a CPU what stays in its cache."""


@dataclass(frozen=True)
class Draws:
    """Draws tokens for the rows of a batch.

    Attributes:
        keys: of each row, [rows, 2] int32.
        temperature: divides the logits; 0 takes the likeliest token.
    """

    keys: Tensor
    temperature: float

    @classmethod
    def of(cls, seed: int, names: Iterable[tuple[str, int]], temperature: float) -> Draws:
        """Draws for the rows of these names: (prompt id, sample)."""
        words = [_words(f"{seed} {sample} {prompt_id}") for prompt_id, sample in names]
        return cls(torch.from_numpy(np.array(words, np.int32).reshape(-1, 2)), temperature)

    def kept(self, rows: Tensor) -> Draws:
        """The draws of these rows alone."""
        return replace(self, keys=self.keys[rows])

    def to(self, where: torch.device) -> Draws:
        """The same draws, on a device."""
        return replace(self, keys=self.keys.to(where))

    def __call__(self, logits: Tensor, step: int) -> Tensor:
        """One token of each row, [rows], from its logits [rows, vocabulary]."""
        if not self.temperature:
            return logits.float().argmax(-1)
        words = _mix(self.keys ^ _mix(torch.full_like(self.keys, step + 1)))
        rows = max(1, BLOCK.get(logits.device.type, BLOCK["cuda"]) // logits.shape[-1])
        blocks = zip(torch.split(logits, rows), torch.split(words, rows), strict=True)
        return torch.cat(
            [
                (some.float() / self.temperature).add_(gumbel(key, logits.shape[-1])).argmax(-1)
                for some, key in blocks
            ]
        )


def gumbel(words: Tensor, size: int) -> Tensor:
    """Standard Gumbel noise, [rows, size], from two random words per row, [rows, 2] int32."""
    column = torch.arange(size, dtype=torch.int32, device=words.device) * -1640531527
    bits = _mix(_mix(words[:, :1] ^ column) ^ words[:, 1:]) & 0x7FFFFFFF
    # -log(-log(1 - u)): as a float, u is fine near 0 and coarse near 1, and a token that is
    # unlikely is drawn by a u near 0. The other way round the last 1e-7 would never come.
    return bits.float().add_(0.5).mul_(-(2.0**-31)).log1p_().neg_().log_().neg_()


def _words(name: str) -> tuple[int, int]:
    digest = np.frombuffer(hashlib.blake2b(name.encode(), digest_size=8).digest(), "<i4")
    return int(digest[0]), int(digest[1])


def _mix(z: Tensor) -> Tensor:
    """A bijection of 32-bit words in which every bit in moves every bit out; overwrites them.

    Shifts keep the sign here, so what they bring in at the top is masked away.
    """
    z ^= (z >> 16) & 0xFFFF
    z *= 0x7FEB352D
    z ^= (z >> 15) & 0x1FFFF
    z *= -2073254261
    z ^= (z >> 16) & 0xFFFF
    return z
