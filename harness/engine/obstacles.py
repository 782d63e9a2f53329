"""What is in the way of running a model through a trunk: what it says itself, and what it does."""

from __future__ import annotations

import inspect
import re
from typing import Any

import numpy as np
import torch

from harness.engine.branches import Sequences
from harness.engine.engines import Batched, oracle
from harness.engine.trunks import backbone, trunk_for, widest
from harness.store.failures import is_memory

ROUNDING = (1e-4, 1e-3)
"""Nats per token between a trunk and the oracle that may be rounding, in fp32: a hundredth of what
another prompt does to an answer's log-probs, but no less than the first and no more than the second
of these."""

INFLUENCE = 10 * ROUNDING[0]
"""Nats that another prompt must move some token by: of what a prompt leaves as it is, no comparison
of log-probs can tell whether it leaked."""

_WINDOW = re.compile(r"(?!sliding_)(.*_)?window(_size)?")
"""Names of windows that are counted in places of a row; `sliding_window` is looked at by itself."""

_OWN_MASK = ("blocks", "flex")
"""Trunks whose kernels see no mask that a model keeps."""


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
    for name, tokens in vars(config).items():
        if _WINDOW.fullmatch(name) and type(tokens) is int and tokens < widest(longest):
            return f"its window of {tokens} tokens ({name}) is shorter than rows of answers can be"
    if "position_ids" not in inspect.signature(body.forward).parameters:
        return "it takes no position ids"
    if trunk == "blocks" and not getattr(body, "_supports_attention_backend", False):
        return "its attention cannot be replaced"
    return None if trunk in _OWN_MASK else _masked_by_place(body, widest(longest))


def _masked_by_place(body: Any, tokens: int) -> str | None:
    """What stands against rows of so many tokens in masks that the model keeps."""
    for name, mask in body.named_buffers():
        if mask.dtype not in (torch.bool, torch.uint8) or mask.ndim < 2:
            continue
        rows, columns = mask.shape[-2:]
        if rows != columns or rows == 1:
            continue
        if rows < tokens:
            return f"its mask {name} is made for {rows} tokens, and rows can have {tokens}"
        corner = mask[..., :tokens, :tokens].bool()
        if not torch.equal(corner, torch.ones_like(corner).tril()):
            return f"its mask {name} hides tokens by their place in a row"
    return None


def _probe(trunk: str, model: Any, longest: int) -> str | None:
    """Why a trunk is not right for a model, found by asking it and the oracle, in fp32.

    The sequences are as long as any will be, with short ones among them, and as many of them stand
    beside one prompt as ever will: windows that no config names show there, and positions that hang
    on the longest of a batch.
    """
    sequences = _sequences(model.config.get_text_config().vocab_size, longest)
    with torch.no_grad(), torch.autocast(model.device.type, enabled=False):
        plain = oracle(model, sequences)["logprobs"]
        try:
            found = Batched(trunk_for(trunk, longest))(model, sequences)["logprobs"]
        except Exception as error:
            # Whatever a model's own code says of a mask that it does not know.
            if is_memory(error):
                raise
            return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    apart = float((found.values - plain.values).masked_fill(~plain.mask, 0.0).abs().max())
    # What a prompt does to the same answer is what a leak would do; rounding is far below it.
    influence = float((plain.values[0] - plain.values[1])[: len(sequences[0][1])].abs().max())
    if not apart <= min(max(ROUNDING[0], 0.01 * influence), ROUNDING[1]):
        return f"its log-probs are {apart:.2g} nats a token from those of single sequences"
    if trunk != "padded" and longest > 2 and not influence >= INFLUENCE:
        return f"a prompt moves its log-probs by {influence:.2g} nats: no leak would be seen"
    return None


def _sequences(vocabulary: int, longest: int) -> Sequences:
    """Two prompts before the same answer, and more answers beside the first, to the widest.

    Both end in the same token: the answer can feel which it was through attention alone. Of no more
    than two tokens a prompt has one, and is not shared.
    """
    prompt, few = (longest + 1) // 2, max(1, min(3, longest // 2))
    answer, beside = max(1, longest - prompt), widest(longest) - prompt + 1
    ids = np.random.default_rng(0).integers(1, vocabulary, prompt + beside + few).tolist()
    long, rest = tuple(ids[:prompt]), ids[prompt:-few]
    short = (*ids[-few:-1], long[-1])
    one, *others = (tuple(rest[at : at + answer]) for at in range(0, beside, answer))
    return [(long, one), (short, one), (short, short), *((long, other) for other in others)]
