"""The stages of one board, from texts to scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.config import Experiment
from harness.contracts.method import Method
from harness.data.identity import pin
from harness.pipeline.names import BASE, Board, Row
from harness.pipeline.trials import edges
from harness.registry import source_files
from harness.store.stage import Stage

SPARE = 1.15
"""Prompts per wanted pair: some samples are empty or equal and make no pair."""

CHECKPOINT_STEPS = 25

LONG = 250
"""Steps of a cell from which on kernels are measured unless `tuning` says otherwise: measuring
takes as long as some forty of them. The presets for small worlds stay below."""


@dataclass(frozen=True)
class Cell:
    """One run of one row on one board, and the stages that end in its scores.

    Attributes:
        row: None for the reference policy.
        train: None for the reference policy, which is not trained here.
    """

    board: Board
    row: Row | None
    seed: int
    train: Stage | None
    score: Stage


@dataclass(frozen=True)
class Layout:
    """The stages of one board; equal stages of several boards have equal keys and are made once."""

    experiment: Experiment
    board: Board
    reference: Method

    def cells(self, rows: Sequence[Row]) -> Iterator[Cell]:
        """Every run of the board, that of the untrained policy first."""
        for seed in range(self.experiment.seeds):
            completions = self._generate(None, seed, f"generate {self._at(BASE, seed)}")
            yield Cell(self.board, None, seed, None, self._score(completions, BASE, seed))
        for row in rows:
            for seed in range(self.experiment.seeds):
                name = f"{row.method.name} {row.label}".strip()
                train = self._train(row, seed, f"train {self._at(name, seed)}", self._choice(row))
                completions = self._generate(train, seed, f"generate {self._at(name, seed)}")
                yield Cell(self.board, row, seed, train, self._score(completions, name, seed))

    def _at(self, name: str, seed: int) -> str:
        return f"{name}, seed {seed}, {self.board.name}"

    @cached_property
    def _task(self) -> dict[str, Any]:
        """Settings of every stage that asks the task, with the content of what it reads."""
        return {
            "task": self.board.path,
            "task_settings": dict(self.board.settings),
            "task_content": dict(self.board.content),
        }

    @cached_property
    def _plugins(self) -> tuple[Path, ...]:
        return tuple(source_files(self.board.path, "tasks"))

    @cached_property
    def _corpus(self) -> Stage:
        b = self.experiment.budget
        sizes = {
            "texts": b.warm_start.texts if b.warm_start.epochs else 0,
            "train": math.ceil(b.pairs * SPARE),
            "validation": math.ceil(b.validation_pairs * SPARE), "test": b.test_prompts,
        }  # fmt: skip
        settings = {**self._task, "sizes": sizes, "seed": self.experiment.data_seed}
        return Stage(
            "corpus", f"texts and prompts, {self.board.plugin.name}",
            "harness.data.corpus:make_corpus", settings, {}, self._plugins,
        )  # fmt: skip

    @cached_property
    def _policy(self) -> Stage:
        x, w = self.experiment, self.experiment.budget.warm_start
        settings = {
            **self._task, **asdict(w), **_source(x.model), "seed": x.data_seed,
            **self._numbers, "micro": 2 * x.budget.micro_pairs,
            "checkpoint_steps": CHECKPOINT_STEPS,
        }  # fmt: skip
        return Stage(
            "policy", f"warm start of the reference policy, {self.board.plugin.name}",
            "harness.train.warm_start:warm_start", settings, {"corpus": self._corpus},
            self._plugins,
        )  # fmt: skip

    @cached_property
    def _samples(self) -> Stage:
        return self._completions(
            "sample", f"samples for pairs, {self.board.plugin.name}", None,
            splits=["train", "validation"], samples=2, seed=self.experiment.data_seed,
            logprobs=False,
        )  # fmt: skip

    @cached_property
    def _pairs(self) -> Stage:
        settings = {
            **self._task, "variant": self.board.variant, "seed": self.experiment.data_seed,
            "limits": self._limits,
        }  # fmt: skip
        inputs = {"corpus": self._corpus, "samples": self._samples, "policy": self._policy}
        return Stage(
            "pairs", f"labelled pairs, {self.board.name}", "harness.data.corpus:make_pairs",
            settings, inputs, self._plugins,
        )  # fmt: skip

    @property
    def _limits(self) -> dict[str, Any]:
        b = self.experiment.budget
        return {
            "prompt_tokens": b.max_prompt_tokens, "response_tokens": b.max_response_tokens,
            "overlong": b.overlong,
        }  # fmt: skip

    @cached_property
    def _tokens(self) -> Stage:
        b = self.experiment.budget
        most = {"train": b.pairs, "validation": b.validation_pairs}
        return Stage(
            "tokens", f"token ids, {self.board.name}", "harness.data.token_store:tokenise_pairs",
            {"limits": self._limits, "most": most}, {"pairs": self._pairs, "policy": self._policy},
        )  # fmt: skip

    @property
    def _lora(self) -> dict[str, Any] | None:
        lora = self.experiment.budget.lora
        every = lora.targets == "all-linear"
        targets = lora.targets if every else lora.targets.split(",")
        return {"rank": lora.rank, "alpha": lora.alpha, "targets": targets} if lora.rank else None

    @property
    def _numbers(self) -> dict[str, Any]:
        """What moves a log-prob beside the model and the ids."""
        return {"precision": self.experiment.budget.precision, "engine": self.experiment.engine}

    @cached_property
    def _engine(self) -> Stage:
        x, b = self.experiment, self.experiment.budget
        measure, long = None, b.epochs * b.pairs >= LONG * b.pairs_per_step
        if x.tuning == "on" or (x.tuning == "auto" and long):
            # Only then do these move a number: else whoever changes them keeps what was scored.
            measure = {
                "lora": self._lora, "epochs": b.epochs, "pairs_per_step": b.pairs_per_step,
                "micro_pairs": b.micro_pairs, "micro_tokens": b.micro_tokens, "seed": x.data_seed,
            }  # fmt: skip
        return Stage(
            "engine", f"engine for {self.board.name}", "harness.train.tune:choose_engine",
            {**self._numbers, "measure": measure}, {"tokens": self._tokens, "policy": self._policy},
        )  # fmt: skip

    @property
    def _scoring(self) -> dict[str, Stage]:
        """Inputs of every stage that scores the pairs."""
        return {"tokens": self._tokens, "policy": self._policy, "engine": self._engine}

    def _reference_pass(self, *, entropy: bool) -> Stage:
        what = "log-probs and entropies" if entropy else "log-probs"
        return Stage(
            "reference", f"reference {what}, {self.board.name}",
            "harness.train.reference:score_reference", {**self._numbers, "entropy": entropy},
            self._scoring,
        )  # fmt: skip

    @cached_property
    def _mismatched(self) -> Stage:
        return Stage(
            "mismatched", f"reference log-probs of other answers, {self.board.name}",
            "harness.train.mismatched:score_mismatched", self._numbers, self._scoring,
        )  # fmt: skip

    @cached_property
    def _reward_model(self) -> Stage:
        b = self.experiment.budget
        settings = {
            **asdict(b.reward_model), **self._numbers, "micro": b.micro_pairs,
            "seed": self.experiment.data_seed, "checkpoint_steps": CHECKPOINT_STEPS,
        }  # fmt: skip
        return Stage(
            "reward-model", f"reward model, {self.board.name}",
            "harness.train.reward:train_reward_model", settings, self._scoring,
        )  # fmt: skip

    @cached_property
    def _margins(self) -> Stage:
        return Stage(
            "margins", f"reward margins, {self.board.name}", "harness.train.reward:score_margins",
            self._numbers, {**self._scoring, "reward_model": self._reward_model},
        )  # fmt: skip

    def _choice(self, row: Row) -> Stage | None:
        """The stage that chooses among a row's trials by their validation prompts; seed 0 runs."""
        if not row.trials:
            return None
        name, scores = f"{row.method.name} {row.label}", {}
        for i, trial in enumerate(row.trials):
            at = f"trial {i} of {self._at(name, 0)}"
            as_tried = replace(row, settings=trial.settings)
            train = self._train(as_tried, 0, f"train {at}", learning_rate=trial.learning_rate)
            completions = self._generate(train, 0, f"generate {at}", "validation")
            scores[f"trial-{i}"] = self._score(completions, f"{name} trial {i}", 0)
        primary = self.board.task.metrics[0]
        settings = {
            "metric": primary.name, "better": primary.better,
            "trials": [
                {**asdict(trial), "edges": edges(trial, row.method, self.experiment.budget)}
                for trial in row.trials
            ],
        }  # fmt: skip
        return Stage(
            "choice", f"settings of {name}",
            "harness.judge.choose:choose", settings, scores, tolerates=frozenset(scores),
        )  # fmt: skip

    def _train(
        self,
        row: Row,
        seed: int,
        label: str,
        choice: Stage | None = None,
        *,
        learning_rate: float | None = None,
    ) -> Stage:
        b = self.experiment.budget
        optimisation = {
            key: getattr(b, key)
            for key in ("learning_rate", "schedule", "warmup", "weight_decay", "beta1", "beta2",
                        "epsilon", "clip")
        }  # fmt: skip
        if learning_rate is not None:
            optimisation["learning_rate"] = learning_rate
        settings = {
            **self._numbers, "method": row.path, "method_settings": dict(row.settings),
            "seed": seed, "epochs": b.epochs, "pairs_per_step": b.pairs_per_step,
            "micro_pairs": b.micro_pairs, "micro_tokens": b.micro_tokens,
            "processes": self.experiment.processes, "optimisation": optimisation,
            "lora": self._lora, "checkpoint_steps": CHECKPOINT_STEPS,
        }  # fmt: skip
        if b.unit == "flops":
            settings["equal_to"] = {
                "reads": list(self.reference.reads), "whole_step": self.reference.whole_step,
                "reward_epochs": b.reward_model.epochs,
                "moving_reference": self.reference.moving_reference is not None,
            }  # fmt: skip
        inputs = self._scoring
        if choice is not None:
            inputs["choice"] = choice
        reads = set(row.method.reads)
        moving = row.method.moving_reference is not None
        if "entropy" in reads or ("reference" in reads and not moving):
            inputs["reference"] = self._reference_pass(entropy="entropy" in reads)
        if "mismatched" in reads:
            inputs["mismatched"] = self._mismatched
        if {"margin", "rewards"} & reads:
            inputs["margins"] = self._margins
            settings["reward_epochs"] = b.reward_model.epochs
        plugins = tuple(source_files(row.path, "methods"))
        return Stage("train", label, "harness.train.cell:train_cell", settings, inputs, plugins)

    def _generate(self, trained: Stage | None, seed: int, label: str, split: str = "test") -> Stage:
        return self._completions(
            "generate", label, trained, splits=[split], samples=self.experiment.budget.samples,
            # Another stream than the samples that pairs are made of; the same for every method.
            seed=1000 * (self.experiment.data_seed + 1) + seed,
            logprobs=self.board.task.temperature == 1.0,
        )  # fmt: skip

    def _completions(
        self,
        verb: str,
        label: str,
        trained: Stage | None,
        *,
        splits: Sequence[str],
        samples: int,
        seed: int,
        logprobs: bool,
    ) -> Stage:
        b = self.experiment.budget
        decoding = {
            "samples": samples, "temperature": self.board.task.temperature,
            "max_tokens": b.max_response_tokens,
        }  # fmt: skip
        settings = {
            **self._numbers, "splits": list(splits), "decoding": decoding, "seed": seed,
            "logprobs": logprobs, "max_prompt_tokens": b.max_prompt_tokens,
        }  # fmt: skip
        inputs = {"corpus": self._corpus, "policy": self._policy}
        if trained is not None:
            inputs["trained"] = trained
        return Stage(verb, label, "harness.generate.complete:generate", settings, inputs)

    def _score(self, completions: Stage, name: str, seed: int) -> Stage:
        return Stage(
            "score", f"score {self._at(name, seed)}", "harness.judge.score:score", self._task,
            {"completions": completions}, self._plugins,
        )  # fmt: skip


def _source(model: str | None) -> dict[str, Any]:
    """Where the first weights come from, and what is there right now: part of every key."""
    source, content = (None, None) if model is None else pin(model, "model")
    return {"model": source, "content": content}
