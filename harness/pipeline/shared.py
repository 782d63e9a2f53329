"""The stages of a board that all of its rows share, from texts to reward margins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.backends import GENERATION_MEANS
from harness.config import Experiment
from harness.data.identity import pin
from harness.pipeline.names import Board
from harness.registry import source_files
from harness.store.stage import Stage

SPARE = 1.15
"""Prompts per wanted pair: some samples are empty or equal and make no pair."""

CHECKPOINT_STEPS = 25

LONG = 250
"""Steps of a cell from which on kernels are measured unless `tuning` says otherwise: measuring
takes as long as some forty of them. The presets for small worlds stay below."""


@dataclass(frozen=True)
class Shared:
    """What is made once for all methods, settings and seeds of one board.

    Equal stages of several boards have equal keys and are made once, too.

    Attributes:
        backend: what writes completions; see `harness.generate.backends.backend`.
    """

    experiment: Experiment
    board: Board
    backend: Mapping[str, Any]

    @cached_property
    def asked(self) -> dict[str, Any]:
        """Settings of every stage that asks the task, with the content of what it reads."""
        return {
            "task": self.board.path,
            "task_settings": dict(self.board.settings),
            "task_content": dict(self.board.content),
        }

    @cached_property
    def plugins(self) -> tuple[Path, ...]:
        """The files of the task."""
        return tuple(source_files(self.board.path, "tasks"))

    @cached_property
    def corpus(self) -> Stage:
        """Texts and prompts."""
        b = self.experiment.budget
        sizes = {
            "texts": b.warm_start.texts if b.warm_start.epochs else 0,
            "train": math.ceil(b.pairs * SPARE),
            "validation": math.ceil(b.validation_pairs * SPARE), "test": b.test_prompts,
        }  # fmt: skip
        settings = {**self.asked, "sizes": sizes, "seed": self.experiment.data_seed}
        return Stage(
            "corpus", f"texts and prompts, {self.board.plugin.name}",
            "harness.data.corpus:make_corpus", settings, {}, self.plugins,
        )  # fmt: skip

    @cached_property
    def policy(self) -> Stage:
        """The reference policy."""
        x, w = self.experiment, self.experiment.budget.warm_start
        settings = {
            **self.asked, **asdict(w), **_source(x.model), "seed": x.data_seed,
            **self.numbers, "micro": 2 * x.budget.micro_pairs,
            "checkpoint_steps": CHECKPOINT_STEPS,
        }  # fmt: skip
        return Stage(
            "policy", f"warm start of the reference policy, {self.board.plugin.name}",
            "harness.train.warm_start:warm_start", settings, {"corpus": self.corpus},
            self.plugins,
        )  # fmt: skip

    @cached_property
    def samples(self) -> Stage:
        """Its answers, of which pairs are made."""
        return self.completions(
            "sample", f"samples for pairs, {self.board.plugin.name}", None,
            splits=["train", "validation"], samples=self.board.task.samples,
            temperatures=[self.board.task.temperature],
            seed=self.experiment.data_seed, logprobs=False,
        )  # fmt: skip

    @cached_property
    def pairs(self) -> Stage:
        """Labelled pairs."""
        settings = {
            **self.asked, "variant": self.board.variant, "seed": self.experiment.data_seed,
            "limits": self._limits,
        }  # fmt: skip
        inputs = {"corpus": self.corpus, "policy": self.policy}
        if self.board.task.samples:
            inputs["samples"] = self.samples
        return Stage(
            "pairs", f"labelled pairs, {self.board.name}", "harness.data.corpus:make_pairs",
            settings, inputs, self.plugins,
        )  # fmt: skip

    @property
    def _limits(self) -> dict[str, Any]:
        b = self.experiment.budget
        return {
            "prompt_tokens": b.max_prompt_tokens, "response_tokens": b.max_response_tokens,
            "overlong": b.overlong,
        }  # fmt: skip

    @cached_property
    def tokens(self) -> Stage:
        """Their token ids."""
        b = self.experiment.budget
        most = {"train": b.pairs, "validation": b.validation_pairs}
        return Stage(
            "tokens", f"token ids, {self.board.name}", "harness.data.token_store:tokenise_pairs",
            {"limits": self._limits, "most": most}, {"pairs": self.pairs, "policy": self.policy},
        )  # fmt: skip

    @property
    def lora(self) -> dict[str, Any] | None:
        """The adapters of every run; None for full fine-tuning."""
        lora = self.experiment.budget.lora
        every = lora.targets == "all-linear"
        targets = lora.targets if every else lora.targets.split(",")
        return {"rank": lora.rank, "alpha": lora.alpha, "targets": targets} if lora.rank else None

    @property
    def numbers(self) -> dict[str, Any]:
        """What moves a log-prob beside the model and the ids."""
        return {"precision": self.experiment.budget.precision, "engine": self.experiment.engine}

    @cached_property
    def engine(self) -> Stage:
        """The choice of the engine."""
        x, b = self.experiment, self.experiment.budget
        measure, long = None, b.epochs * b.pairs >= LONG * b.pairs_per_step
        if x.tuning == "on" or (x.tuning == "auto" and long):
            # Only then do these move a number: else whoever changes them keeps what was scored.
            measure = {
                "lora": self.lora, "epochs": b.epochs, "pairs_per_step": b.pairs_per_step,
                "micro_pairs": b.micro_pairs, "micro_tokens": b.micro_tokens, "seed": x.data_seed,
            }  # fmt: skip
        return Stage(
            "engine", f"engine for {self.board.name}", "harness.train.tune:choose_engine",
            {**self.numbers, "measure": measure}, {"tokens": self.tokens, "policy": self.policy},
        )  # fmt: skip

    @property
    def scoring(self) -> dict[str, Stage]:
        """Inputs of every stage that scores the pairs."""
        return {"tokens": self.tokens, "policy": self.policy, "engine": self.engine}

    def reference_pass(self, *, entropy: bool) -> Stage:
        """Log-probs of the pairs under the reference policy, and its entropies."""
        what = "log-probs and entropies" if entropy else "log-probs"
        return Stage(
            "reference", f"reference {what}, {self.board.name}",
            "harness.train.reference:score_reference", {**self.numbers, "entropy": entropy},
            self.scoring,
        )  # fmt: skip

    @cached_property
    def mismatched(self) -> Stage:
        """Reference log-probs of the answers to other prompts."""
        return Stage(
            "mismatched", f"reference log-probs of other answers, {self.board.name}",
            "harness.train.mismatched:score_mismatched", self.numbers, self.scoring,
        )  # fmt: skip

    @cached_property
    def reward_model(self) -> Stage:
        """A reward model of the pairs."""
        b = self.experiment.budget
        settings = {
            **asdict(b.reward_model), **self.numbers, "micro": b.micro_pairs,
            "seed": self.experiment.data_seed, "checkpoint_steps": CHECKPOINT_STEPS,
        }  # fmt: skip
        return Stage(
            "reward-model", f"reward model, {self.board.name}",
            "harness.train.reward:train_reward_model", settings, self.scoring,
        )  # fmt: skip

    @cached_property
    def margins(self) -> Stage:
        """Its margins."""
        return Stage(
            "margins", f"reward margins, {self.board.name}", "harness.train.reward:score_margins",
            self.numbers, {**self.scoring, "reward_model": self.reward_model},
        )  # fmt: skip

    def completions(
        self,
        verb: str,
        label: str,
        trained: Stage | None,
        *,
        splits: Sequence[str],
        samples: int,
        temperatures: Sequence[float],
        seed: int,
        logprobs: bool,
    ) -> Stage:
        """Completions of the reference policy, or of a trained one."""
        b = self.experiment.budget
        decoding = {
            "samples": samples, "temperatures": list(temperatures),
            "max_tokens": b.max_response_tokens,
        }  # fmt: skip
        settings = {
            **self.numbers, "splits": list(splits), "decoding": decoding, "seed": seed,
            "logprobs": logprobs, "max_prompt_tokens": b.max_prompt_tokens,
            "backend": dict(self.backend),
        }  # fmt: skip
        inputs = {"corpus": self.corpus, "policy": self.policy}
        if trained is not None:
            inputs["trained"] = trained
        every = asdict(self.experiment.generation)
        return Stage(
            verb, label, "harness.generate.complete:generate", settings, inputs,
            means={key: every[key] for key in GENERATION_MEANS},
        )  # fmt: skip


def _source(model: str | None) -> dict[str, Any]:
    """Where the first weights come from, and what is there right now: part of every key."""
    source, content = (None, None) if model is None else pin(model, "model")
    return {"model": source, "content": content}
