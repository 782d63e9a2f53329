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
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface
from transformers.modeling_layers import GradientCheckpointingLayer

from harness.data.token_store import token_counts
from harness.data.tokens import TokenPair
from harness.engine.engines import Batched, Engine, oracle
from harness.engine.head import TILE_LOGITS
from harness.engine.kernels import BLOCKS, attend_in_blocks, attending
from harness.engine.trunks import KERNELS, TRUNKS, Trunk, backbone
from harness.errors import GateError
from harness.store.failures import is_memory
from harness.store.stage import Work

SHARED = {"cpu": ("blocks", "dense"), "cuda": ("dense", "blocks")}
"""Trunks of the `shared` engine that are taken unmeasured, by device, the preferred one first."""

ROUNDING = 1e-4
"""Nats per token between a trunk and the oracle that may be rounding, in fp32."""


@dataclass(frozen=True)
class Choice:
    """An engine, and how it is run.

    Attributes:
        trunk: a name of `TRUNKS`, or "oracle".
        tile: fp32 logits that the head holds at the same time.
        compiled: the layers, and the head's sums over the vocabulary, go through torch.compile.
        recompute: layers keep their inputs only and are run again in the backward pass.
        why: what was in the way of a faster one, in words; empty where nothing was.
        longest: tokens of the longest sequence that it was found right for.
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
        """The trunk, for what reads hidden states; the oracle has none of its own."""
        return TRUNKS["padded" if self.trunk == "oracle" else self.trunk]

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


def obstacle(trunk: str, model: Any, longest: int) -> str | None:
    """Why a model cannot be run through a trunk, in words; None if it can."""
    if trunk != "padded" and (reason := _declared(trunk, model, longest)):
        return reason
    return _probe(trunk, model, longest)


def _declared(trunk: str, model: Any, longest: int) -> str | None:
    """What the model's own code and config say against sharing prompts."""
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
    return None


def _probe(trunk: str, model: Any, longest: int) -> str | None:
    """Why a trunk is not right for a model, found by asking it and the oracle, in fp32.

    The sequences are as long as any will be, with short ones among them: windows that no config
    names show there, and positions that hang on the longest of a batch.
    """
    prompt, few = max(1, longest // 2), max(1, min(3, longest // 2))
    vocabulary = model.config.get_text_config().vocab_size
    ids = np.random.default_rng(0).integers(1, vocabulary, 2 * longest + 3).tolist()
    long, (one, other) = tuple(ids[:prompt]), (tuple(ids[prompt:longest]), tuple(ids[longest:]))
    one, other = one or other[:1], other[: max(1, longest - prompt)]
    short = tuple(ids[-few:])
    sequences = [(long, one), (long, other), (short, one), (short, other[:few])]
    with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
        plain = oracle(model, sequences)["logprobs"]
        try:
            found = Batched(TRUNKS[trunk])(model, sequences)["logprobs"]
        except Exception as error:
            # Whatever a model's own code says of a mask that it does not know.
            if is_memory(error):
                raise
            return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    apart = float((found.values - plain.values).masked_fill(~plain.mask, 0.0).abs().max())
    # What a prompt does to the same answer is what a leak would do; rounding is far below it.
    influence = float((plain.values[0] - plain.values[2])[: len(one)].abs().max())
    if not apart <= max(ROUNDING, 0.01 * min(influence, 0.1)):
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
