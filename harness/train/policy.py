"""Policies: built from a config, loaded from a folder or a hub, saved as safetensors."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from harness.contracts.task import SmallModel
from harness.data.identity import locate
from harness.errors import DataError, unknown

logging.set_verbosity_error()  # type: ignore[no-untyped-call]
logging.disable_progress_bar()  # type: ignore[no-untyped-call]

SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")


def build_small(spec: SmallModel, seed: int) -> tuple[Any, Any]:
    """A Llama of random weights and its word tokenizer, from a world's vocabulary."""
    words = {word: i for i, word in enumerate((*SPECIAL, *spec.words))}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", words["<bos>"])]
    )
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>",
        unk_token="<unk>",
    )  # fmt: skip
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words), pad_token_id=0, bos_token_id=1, eos_token_id=2, **spec.config
    )
    return LlamaForCausalLM(config), tokenizer


def load_policy(source: str | Path) -> tuple[Any, Any]:
    """A causal model in fp32 and its tokenizer, from a folder or a hub id (`owner/name@commit`).

    Raises:
        DataError: there is no such model, it is not whole, or its weights are not safetensors.
    """
    place = locate(str(source))
    name, revision = (place, None) if isinstance(place, Path) else (place.name, place.revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name, revision=revision, dtype=torch.float32, use_safetensors=True,
            output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise DataError(
            f"'{source}' is not a causal language model that can be loaded: {error}. It needs "
            "config.json, tokenizer files and *.safetensors"
        ) from error
    model, found = loaded
    if getattr(model, "_hf_peft_config_loaded", False):
        raise DataError(f"'{source}' is an adapter: merge it into its base model and save that")
    if missing := sorted(found["missing_keys"]):
        raise DataError(
            f"'{source}' lacks {len(missing)} of the weights that its config.json asks for, "
            f"{missing[0]} among them: they would be random. Save the whole causal model again"
        )
    return model, tokenizer


def check_context(model: Any, tokens: int) -> None:
    """Past its context a model fails, or goes on without a word.

    Raises:
        DataError: its sequences may be longer than the model can read, or so long that one changes
            the positions of all others in its batch.
    """
    config = model.config.get_text_config()
    most = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    original = "original_max_position_embeddings"
    short = rope.get(original) or getattr(config, original, None) or most
    if rope.get("rope_type") in ("longrope", "dynamic") and short is not None and tokens > short:
        raise DataError(
            f"beyond {short} tokens this model's rotary embedding ({rope['rope_type']}) changes "
            f"with the longest sequence of a batch, and the budget allows {tokens}: lower it"
        )
    if most is not None and tokens > most:
        raise DataError(
            f"the model reads {most} tokens and the budget allows {tokens}: lower "
            "budget.max_prompt_tokens, budget.max_response_tokens or budget.warm_start.max_tokens"
        )


def save_policy(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write weights (safetensors), config and tokenizer; `load_policy` reads them back."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def without_dropout(model: Any) -> Any:
    """Switch dropout off for good: policy and reference must agree at the first step."""
    return model.eval()


def adapt(model: Any, lora: Mapping[str, Any] | None, seed: int) -> Any:
    """The model itself for full fine-tuning, or with fresh LoRA adapters and the rest frozen.

    Args:
        model: a causal model.
        lora: rank, alpha and target modules ("all-linear" or a list of names), or None.
        seed: of the adapter's random half; the other half is zero, so nothing changes yet.

    Raises:
        RequestError: the model has no module of a target's name.
    """
    if lora is None:
        return model
    from peft import LoraConfig, get_peft_model

    # peft overlooks a name that fits nothing as long as another does.
    names = {name.rpartition(".")[2] for name, _ in model.named_modules()}
    for target in [] if lora["targets"] == "all-linear" else lora["targets"]:
        if target.rpartition(".")[2] not in names:
            raise unknown("LoRA target", target, names - {""})
    torch.manual_seed(seed)
    config = LoraConfig(
        r=lora["rank"], lora_alpha=lora["alpha"], target_modules=lora["targets"],
        lora_dropout=0.0, bias="none", task_type="CAUSAL_LM",
    )  # fmt: skip
    with _quiet():
        return get_peft_model(model, config)


def load_trained(reference: Path, trained: Path) -> tuple[Any, Any]:
    """The policy of a finished training stage: a whole model, or an adapter on the reference."""
    if not (trained / "adapter_config.json").exists():
        return load_policy(trained)
    model, tokenizer = load_policy(reference)
    return with_adapter(model, trained), tokenizer


def with_adapter(model: Any, trained: Path) -> Any:
    """The model with the adapter that a training stage saved; the model itself is changed."""
    from peft import PeftModel

    with _quiet():
        return PeftModel.from_pretrained(model, trained)


@contextmanager
def _quiet() -> Iterator[None]:
    """Peft reads an attribute that transformers has renamed; that is between the two of them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing`", FutureWarning)
        yield
