"""A contestant: TRL's DPOTrainer on a workload's folder. Runs inside the peer's own environment.

`PYTHON_OF_THE_PEER -m benchmarks.peer_trl FOLDER VARIANT`, started by the other files.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import datasets
import torch
import transformers
import trl  # type: ignore[import-not-found,unused-ignore]
from transformers import AutoTokenizer, TrainerCallback

from benchmarks.turns import Turns

_BEST = {"precompute_ref_log_probs": True, "gradient_checkpointing": False}
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "best": _BEST,
    "eager": {**_BEST, "model_init_kwargs": {"attn_implementation": "eager"}},
    "halves": {**_BEST, "gradient_accumulation_steps": 2},
    "workers": {**_BEST, "dataloader_num_workers": 1},
    "multiple": {**_BEST, "pad_to_multiple_of": 64},
    "compiled": {**_BEST, "torch_compile": True},
}
"""What differs from TRL's defaults, beside what both sides must agree on.

All but the first two are candidates for a better best. Not among them: `padding_free`, which TRL
1.8 and 1.16 take and ignore, and grouping by length, which trains on other batches.
"""


class Trainer(trl.DPOTrainer):  # type: ignore[misc,unused-ignore]
    """TRL's trainer, which also keeps each step's loss."""

    losses: list[Any]

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """As TRL does it."""
        loss = super().training_step(*args, **kwargs)
        self.losses.append(loss)
        return loss


class Between(TrainerCallback):
    """Waits for the next round after a round's last step."""

    def __init__(self, turns: Turns, losses: list[Any], parts: int) -> None:
        self.turns, self.losses, self.parts = turns, losses, parts

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """One optimizer step was made."""
        self.turns.step_done(float(sum(self.losses[-self.parts :])))


def main(folder: Path, variant: str) -> None:
    """Build the trainer as a user would, check that it sees our ids, and train on request."""
    spec = json.loads((folder / "spec.json").read_text())
    pairs = json.loads((folder / "pairs.json").read_text())
    cuda = torch.cuda.is_available()
    turns = Turns(torch.cuda.max_memory_allocated, torch.cuda.synchronize) if cuda else Turns()
    trainer = _trainer(folder, variant, spec, pairs)
    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    if [[row[name] for name in columns] for row in trainer.train_dataset] != pairs:
        raise SystemExit("TRL's token ids are not those of the workload: nothing to compare")
    turns.ready(
        versions={m.__name__: m.__version__ for m in (trl, torch, transformers)},
        device=torch.cuda.get_device_name() if cuda else "cpu",
    )  # fmt: skip
    parts = trainer.args.gradient_accumulation_steps
    trainer.add_callback(Between(turns, trainer.losses, parts))
    trainer.train()


def _trainer(folder: Path, variant: str, spec: dict[str, Any], pairs: list[Any]) -> Trainer:
    scratch, more = folder / f"trl-{variant}-{os.getpid()}", VARIANTS[variant]
    parts = more.get("gradient_accumulation_steps", 1)
    config = trl.DPOConfig(
        output_dir=str(scratch / "out"), per_device_train_batch_size=spec["per_step"] // parts,
        max_steps=spec["steps"], learning_rate=spec["learning_rate"], beta=spec["beta"],
        lr_scheduler_type="constant", warmup_steps=0, max_grad_norm=spec["clip"], weight_decay=0.0,
        bf16=spec["precision"] == "bf16", max_length=None, seed=spec["seed"],
        train_sampling_strategy="sequential", logging_strategy="no", save_strategy="no",
        report_to="none", disable_tqdm=True, use_cpu=not torch.cuda.is_available(),
        **more,
    )  # fmt: skip
    trainer = Trainer(
        str(folder / "model"), args=config, train_dataset=_texts(pairs, scratch / "pairs"),
        processing_class=AutoTokenizer.from_pretrained(folder / "model"), peft_config=_lora(spec),
    )  # fmt: skip
    trainer.losses = []
    if spec["lora"]:
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        adapter = load_file(folder / "adapter" / "adapter_model.safetensors")
        set_peft_model_state_dict(trainer.model, adapter)
    return trainer


def _texts(pairs: list[Any], place: Path) -> Any:
    """The pairs as texts whose words are the ids; TRL's tokenisation gives the ids back."""

    def text(ids: list[int], last: str) -> str:
        return "".join(f"{i} " for i in ids) + last

    rows = [
        {
            "prompt": text(prompt[1:], ""),  # its BOS is put in by the tokenizer
            "chosen": text(chosen[:-1], "<eos>"),
            "rejected": text(rejected[:-1], "<eos>"),
        }
        for prompt, chosen, rejected in pairs
    ]
    # From disk: TRL 1.8 cannot keep reference log-probs for a data set that is only in memory.
    datasets.Dataset.from_list(rows).save_to_disk(place)
    return datasets.load_from_disk(place)


def _lora(spec: dict[str, Any]) -> Any:
    if not spec["lora"]:
        return None
    from peft import LoraConfig

    return LoraConfig(
        r=spec["lora"], lora_alpha=32, target_modules="all-linear", lora_dropout=0.0,
        bias="none", task_type="CAUSAL_LM",
    )  # fmt: skip


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
