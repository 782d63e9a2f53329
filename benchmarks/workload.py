"""What the benchmarks train: a Llama of random weights and pairs by length, in one folder.

Speed hangs on lengths and not on words, so that ids are random unless a folder of real texts is
given; then these are tokenised and their ids are folded into the model's vocabulary.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer

from harness.contracts.task import SmallModel
from harness.data.token_store import save_pairs
from harness.data.tokens import Limits, TokenPair, TokenRules, tokenise
from harness.errors import RequestError
from harness.records import Pair
from harness.train.policy import SPECIAL, adapt, build_small, save_policy

VOCABULARY = 32_000
BOS, EOS = SPECIAL.index("<bos>"), SPECIAL.index("<eos>")


def _llama(width: int, inner: int, layers: int, heads: int, shared: int) -> dict[str, Any]:
    return {
        "hidden_size": width, "intermediate_size": inner, "num_hidden_layers": layers,
        "num_attention_heads": heads, "num_key_value_heads": shared,
        "max_position_embeddings": 2048, "tie_word_embeddings": True,
    }  # fmt: skip


MODELS: Mapping[str, Mapping[str, Any]] = {
    "tiny": _llama(32, 64, 1, 1, 1),
    "15m": _llama(288, 768, 6, 6, 6),
    "0.5b": _llama(1024, 4096, 24, 16, 8),
    "1b": _llama(2048, 8192, 16, 32, 8),
}
"""By their rough number of parameters with a tied vocabulary of 32,000; `tiny` is for tests."""


@dataclass(frozen=True)
class Lengths:
    """Tokens of a text: uniform, or log-normal about a median where one is given."""

    low: int
    high: int
    median: float | None = None
    spread: float = 0.0

    def draw(self, rng: np.random.Generator, count: int) -> NDArray[np.int64]:
        """That many lengths, in tokens."""
        if self.median is None:
            return rng.integers(self.low, self.high + 1, count)
        drawn = rng.lognormal(np.log(self.median), self.spread, count).round()
        return np.clip(drawn, self.low, self.high).astype(np.int64)


PROFILES: Mapping[str, tuple[Lengths, Lengths]] = {
    "table": (Lengths(64, 256), Lengths(32, 256)),
    "tldr": (Lengths(64, 640, 382, 0.35), Lengths(8, 128, 34, 0.4)),
    "hh": (Lengths(16, 512, 127, 0.7), Lengths(8, 384, 59, 0.8)),
    "ultrafeedback": (Lengths(16, 512, 121, 0.8), Lengths(16, 768, 288, 0.6)),
}
"""Tokens of prompts and of answers; all but the first about the medians of real data sets."""

TEXTS = {
    "tldr": "reddit-tldr/train.jsonl.gz",
    "ultrafeedback": "ultrafeedback-sample/train.jsonl.gz",
}
"""Real texts of a profile, in the folder that is given. Their medians are their own."""


@dataclass(frozen=True)
class Spec:
    """One workload: everything that both sides must agree on.

    Attributes:
        profile: whose lengths; a name in `PROFILES`.
        lora: rank of the adapters on all linear modules; 0 trains all weights.
        steps: of training; each has `per_step` pairs.
    """

    profile: str = "table"
    model: str = "15m"
    precision: str = "bf16"
    lora: int = 0
    steps: int = 20
    per_step: int = 8
    beta: float = 0.1
    learning_rate: float = 1e-5
    clip: float = 1.0
    seed: int = 0
    micro_tokens: int = 16384

    @property
    def adapters(self) -> dict[str, Any] | None:
        """What `harness.train.policy.adapt` is given."""
        return {"rank": self.lora, "alpha": 32, "targets": "all-linear"} if self.lora else None


def random_pairs(spec: Spec, count: int) -> list[TokenPair]:
    """Pairs of random ids; BOS and EOS are counted in the lengths."""
    rng = np.random.default_rng(spec.seed)
    prompt, answer = PROFILES[spec.profile]
    sizes = (prompt.draw(rng, count), answer.draw(rng, count), answer.draw(rng, count))

    def ids(length: int) -> tuple[int, ...]:
        return tuple(rng.integers(len(SPECIAL), VOCABULARY, length - 1).tolist())

    return [
        TokenPair(f"pair-{i}", (BOS, *ids(p)), (*ids(c), EOS), (*ids(r), EOS))
        for i, (p, c, r) in enumerate(zip(*sizes, strict=True))
    ]


def text_pairs(spec: Spec, count: int, data: Path, tokenizer: Path) -> list[TokenPair]:
    """Pairs of real texts, the first that fit into the profile's longest.

    Raises:
        RequestError: there are no texts of this profile, or too few.
    """
    if spec.profile not in TEXTS:
        raise RequestError(f"no real texts of profile '{spec.profile}': leave out --data")
    prompt, answer = PROFILES[spec.profile]
    rules = TokenRules.of(AutoTokenizer.from_pretrained(tokenizer))
    with gzip.open(data / TEXTS[spec.profile], "rt", encoding="utf-8") as file:
        pairs = list(_texts([json.loads(line) for line in file]))[: 20 * count]
    rows, _ = tokenise(pairs, rules, Limits(prompt.high - 1, answer.high, "drop"))
    if len(rows) < count:
        raise RequestError(f"{data / TEXTS[spec.profile]}: {len(rows)} pairs fit, not {count}")
    return [
        TokenPair(
            row.pair_id, (BOS, *_fold(row.prompt)), (*_fold(row.chosen[:-1]), EOS),
            (*_fold(row.rejected[:-1]), EOS),
        )
        for row in rows[:count]
    ]  # fmt: skip


def _texts(rows: Sequence[Mapping[str, str]]) -> Iterator[Pair]:
    for i, row in enumerate(rows):
        if "chosen" in row:
            prompt, chosen, rejected = row["prompt"], row["chosen"], row["rejected"]
        else:  # nobody compared these summaries: the rejected one is of another post
            prompt = f"r/{row['subreddit']}\n{row['title']}\n{row['post']}\nTL;DR:"
            chosen, rejected = row["summary"], rows[i - 1]["summary"]
        yield Pair(f"text-{i}", "train", prompt, " " + chosen, " " + rejected)


def _fold(ids: Sequence[int]) -> list[int]:
    return [len(SPECIAL) + i % (VOCABULARY - len(SPECIAL)) for i in ids]


def write(spec: Spec, pairs: Sequence[TokenPair], folder: Path) -> None:
    """Weights, a tokenizer whose words are the ids, pairs and settings, as both sides read them."""
    words = [str(i) for i in range(len(SPECIAL), VOCABULARY)]
    model, tokenizer = build_small(SmallModel(words, MODELS[spec.model]), spec.seed)
    save_policy(model, tokenizer, folder / "model")
    if spec.lora:
        adapt(model, spec.adapters, spec.seed).save_pretrained(folder / "adapter")
    (folder / "tokens").mkdir()
    save_pairs(folder / "tokens" / "train.safetensors", pairs)
    save_pairs(folder / "tokens" / "validation.safetensors", pairs[:1])
    ids = [[pair.prompt, pair.chosen, pair.rejected] for pair in pairs]
    (folder / "pairs.json").write_text(json.dumps(ids))
    (folder / "spec.json").write_text(json.dumps(asdict(spec)))


def make(spec: Spec, folder: Path, data: Path | None, tokenizer: Path | None) -> list[TokenPair]:
    """The pairs of a workload in the order of training; all of it is written to the folder.

    Raises:
        RequestError: texts without a tokenizer, or a tokenizer without texts.
    """
    count = spec.steps * spec.per_step
    if (data is None) != (tokenizer is None):
        raise RequestError("--data and --tokenizer go together: give both or neither")
    if data is None or tokenizer is None:
        pairs = random_pairs(spec, count)
    else:
        pairs = text_pairs(spec, count, data, tokenizer)
    write(spec, pairs, folder)
    return pairs
