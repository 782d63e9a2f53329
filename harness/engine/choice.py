"""Which engine a model is run with: what it can take, and how that is switched on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface
from transformers.modeling_layers import GradientCheckpointingLayer

from harness.data.token_store import token_counts
from harness.data.tokens import TokenPair
from harness.engine.engines import Batched, Engine, oracle
from harness.engine.head import TILE_LOGITS
from harness.engine.kernels import BLOCKS, attend_in_blocks, attending
from harness.engine.obstacles import obstacle
from harness.engine.trunks import KERNELS, TRUNKS, Trunk, backbone, trunk_for
from harness.errors import GateError
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
        longest: tokens of the longest sequence that it was found right for; 0 is any.
    """

    trunk: str
    tile: int = TILE_LOGITS
    compiled: bool = False
    recompute: bool = False
    why: str = ""
    longest: int = 0

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
        if self.trunk == "oracle":
            return oracle
        return Batched(self.states, self.tile, self.compiled)

    @property
    def states(self) -> Trunk:
        """The trunk; the oracle has none, see `with_states`."""
        return trunk_for(self.trunk, self.longest) if self.longest else TRUNKS[self.trunk]

    @property
    def with_states(self) -> Choice:
        """The choice for what reads hidden states and no log-probs."""
        if self.trunk != "oracle":
            return self
        return Choice("padded", why="the oracle has no hidden states", longest=self.longest)

    @property
    def name(self) -> str:
        """`shared`, `padded` or `oracle`."""
        return self.trunk if self.trunk in ("padded", "oracle") else "shared"

    @property
    def sentence(self) -> str:
        """What a reader of a manifest or a board is told."""
        parts = {
            self.trunk: self.name == "shared", "compiled": self.compiled,
            "layers computed twice to save memory": self.recompute,
        }  # fmt: skip
        how = ", ".join(part for part, it_is in parts.items() if it_is)
        told = f"engine {self.name}" + (f" ({how})" if how else "")
        return f"{told}: {self.why}" if self.why else told


def choose(wanted: str, model: Any, longest: int) -> Choice:
    """The first trunk of the wanted engine that is right for this model, or `padded` and why.

    Args:
        wanted: "shared", "padded" or "oracle".
        model: a causal model.
        longest: tokens of the longest sequence that it will see.

    Raises:
        GateError: not even `padded` gives the log-probs of single sequences.
    """
    if wanted == "oracle":
        return Choice(wanted, longest=longest)
    reasons: list[str] = []
    for trunk in (*(SHARED[model.device.type] if wanted == "shared" else ()), "padded"):
        reason = obstacle(trunk, model, longest)
        if reason is None:
            return Choice(trunk, why="; ".join(dict.fromkeys(reasons)), longest=longest)
        reasons.append(reason)
    raise GateError(
        f"no engine is right for this model with sequences of {longest} tokens: padded in a batch, "
        f'{reasons[-1]}; `engine = "oracle"` runs one sequence at a time'
    )


def chosen(work: Work, model: Any, longest: int) -> Choice:
    """What was chosen for all stages of a board; by the rule where a stage comes before that.

    Raises:
        GateError: it was found right for shorter sequences only.
    """
    if "engine" not in work.inputs:
        return choose(work.settings["engine"], model, longest)
    choice = Choice.load(work.inputs["engine"])
    if choice.longest < longest:
        raise GateError(
            f"the engine was found right for sequences of {choice.longest} tokens, not {longest}"
        )
    return choice


def longest(*pairs: Sequence[TokenPair]) -> int:
    """Tokens that no sequence exceeds, whichever prompt of these meets whichever answer."""
    counts = [token_counts(some).max(1) for some in pairs]
    prompt, chosen, rejected = np.max(counts, axis=0).tolist()
    return int(prompt + max(chosen, rejected))


def because(choice: Choice, *reasons: str) -> Choice:
    """The choice with more reasons behind those that it has."""
    return replace(choice, why="; ".join(filter(None, (choice.why, *reasons))))


def layers_of(model: Any) -> list[Any]:
    """The layers that can be compiled and computed twice; a few old architectures have none."""
    return [m for m in backbone(model).modules() if isinstance(m, GradientCheckpointingLayer)]


@contextmanager
def prepared(model: Any, choice: Choice) -> Iterator[None]:
    """Compile the layers and let them recompute, as chosen; undone at the end."""
    body, layers = backbone(model), layers_of(model)
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
    # Not by transformers' own switch: it asks for layers that train, and those drop out.
    for layer in layers:
        if contexts is None:
            del layer.forward
        else:
            layer.forward = partial(
                checkpoint, layer.forward, use_reentrant=False, context_fn=contexts
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
