"""Which engine a model is run with: what it can take, and how that is switched on."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint, noop_context_fn
from transformers import AttentionInterface
from transformers.modeling_layers import GradientCheckpointingLayer

from harness.data.token_store import token_counts
from harness.data.tokens import TokenPair
from harness.engine.engines import Batched, Engine, oracle
from harness.engine.head import TILE_LOGITS
from harness.engine.kernels import BLOCKS, attend_in_blocks, attending
from harness.engine.trunks import KERNELS, TRUNKS, backbone
from harness.store.stage import Work

SHARED = {"cpu": ("blocks", "dense"), "cuda": ("dense", "blocks")}
"""Trunks of the `shared` engine that are taken unmeasured, by device, the preferred one first."""


@dataclass(frozen=True)
class Choice:
    """An engine, and how it is run.

    Attributes:
        trunk: a name of `TRUNKS`, or "oracle".
        tile: fp32 logits that the head holds at the same time.
        compiled: the layers, and the head's sums over the vocabulary, go through torch.compile.
        recompute: layers keep their inputs only and are run again in the backward pass.
        why: what was in the way of a faster one, in words; empty where nothing was.
    """

    trunk: str
    tile: int = TILE_LOGITS
    compiled: bool = False
    recompute: bool = False
    why: str = ""

    @classmethod
    def load(cls, folder: Path) -> Choice:
        """Read what `save` wrote."""
        return cls(**json.loads((folder / "choice.json").read_text()))

    def save(self, folder: Path) -> None:
        """Write it for the stages that follow."""
        (folder / "choice.json").write_text(json.dumps(asdict(self)))

    @property
    def engine(self) -> Engine:
        """The engine itself."""
        return (
            oracle
            if self.trunk == "oracle"
            else Batched(TRUNKS[self.trunk], self.tile, self.compiled)
        )

    @property
    def name(self) -> str:
        """`shared`, `padded` or `oracle`."""
        return self.trunk if self.trunk in ("padded", "oracle") else "shared"

    @property
    def sentence(self) -> str:
        """What a reader of a manifest or a board is told."""
        how = [self.trunk] if self.name == "shared" else []
        how += ["compiled"] * self.compiled + [
            "layers computed twice to save memory"
        ] * self.recompute
        told = f"engine {self.name}" + (f" ({', '.join(how)})" if how else "")
        return f"{told}: {self.why}" if self.why else told


def choose(wanted: str, model: Any, longest: int) -> Choice:
    """The first trunk of the wanted engine that this model can take, or `padded` and why.

    Args:
        wanted: "shared", "padded" or "oracle".
        model: a causal model.
        longest: tokens of the longest sequence that it will see.
    """
    if wanted in ("oracle", "padded"):
        return Choice(wanted)
    reasons: list[str] = []
    for trunk in SHARED[model.device.type]:
        reason = obstacle(trunk, model, longest)
        if reason is None:
            return Choice(trunk, why="; ".join(dict.fromkeys(reasons)))
        reasons.append(reason)
    return Choice("padded", why="; ".join(dict.fromkeys(reasons)))


def chosen(work: Work, model: Any, longest: int) -> Choice:
    """What was chosen for all stages of a board; by the rule where a stage comes before that."""
    if "engine" in work.inputs:
        return Choice.load(work.inputs["engine"])
    return choose(work.settings["engine"], model, longest)


def longest(pairs: Sequence[TokenPair]) -> int:
    """Tokens of the longest sequence of some pairs."""
    prompt, chosen, rejected = token_counts(pairs)
    return int((prompt + np.maximum(chosen, rejected)).max())


def obstacle(trunk: str, model: Any, longest: int) -> str | None:
    """Why a model cannot be run through a trunk of the shared engine, in words; None if it can."""
    body = backbone(model)
    config = body.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None)
    if strange := sorted(kinds - {"full_attention", "sliding_attention"}):
        return f"it has layers of the kind {', '.join(strange)}"
    if window is not None and window < longest and kinds != {"full_attention"}:
        return f"its window of {window} tokens is shorter than sequences of {longest}"
    if "position_ids" not in inspect.signature(body.forward).parameters:
        return "it takes no position ids"
    if trunk == "blocks" and not getattr(body, "_supports_attention_backend", False):
        return "its attention cannot be replaced"
    return _probe(trunk, model)


def _probe(trunk: str, model: Any) -> str | None:
    """Why a trunk is not right for a model, found by asking both it and the oracle."""
    most = model.config.get_text_config().vocab_size
    ids = tuple(1 + 7 * i % (most - 1) for i in range(12))
    sequences = [(ids[:3], ids[3:6]), (ids[4:5], ids[3:6]), (ids[:3], ids[5:9])]
    with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
        plain = oracle(model, sequences)["logprobs"].values
        try:
            found = Batched(TRUNKS[trunk])(model, sequences)["logprobs"].values
        except Exception as error:  # whatever a model's code says of a mask that it does not know
            return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    apart = float((found - plain).abs().max())
    # What a prompt does to the same answer is what a leak would do; rounding is far below it.
    influence = float((plain[0] - plain[1])[:3].abs().max())
    if not apart <= max(1e-5, 0.01 * min(influence, 0.1)):
        return f"its log-probs are {apart:.2g} nats a token from those of single sequences"
    return None


@contextmanager
def prepared(model: Any, choice: Choice) -> Iterator[None]:
    """Compile the layers and let them recompute, as chosen; undone at the end."""
    body = backbone(model)
    layers = [m for m in body.modules() if isinstance(m, GradientCheckpointingLayer)]
    with ExitStack() as undo:
        if choice.recompute:
            undo.callback(_recompute, layers, None)
            _recompute(layers, partial(_again, body, KERNELS.get(choice.trunk)))
        if choice.compiled:
            undo.callback(_compile, layers, on=False)
            _compile(layers, on=True)
        yield


def _again(body: Any, kernel: str | None) -> tuple[Any, Any]:
    """Contexts of the first and of the second pass: the second runs where no trunk is around it."""
    return nullcontext(), attending(body, kernel) if kernel else nullcontext()


def _recompute(layers: Sequence[Any], contexts: Callable[[], tuple[Any, Any]] | None) -> None:
    for layer in layers:
        layer.gradient_checkpointing = contexts is not None
        layer.training = contexts is not None  # its parts do not: they must not begin to drop out
        layer._gradient_checkpointing_func = partial(
            checkpoint, use_reentrant=False, context_fn=contexts or noop_context_fn
        )


def _compile(layers: Sequence[Any], *, on: bool) -> None:
    # Blocks are loops over lengths that differ every time: a compiler would begin anew for each.
    kernel: Any = attend_in_blocks
    if on:
        kernel = torch.compiler.disable(kernel)  # type: ignore[no-untyped-call]
    AttentionInterface.register(BLOCKS, kernel)
    for layer in layers:
        if on:
            layer.compile(dynamic=True)
        else:
            layer._compiled_call_impl = None
