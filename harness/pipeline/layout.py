"""The runs of one board: each row trained, its answers generated, judged and scored."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.metadata import version
from typing import Any

from harness.backends import JUDGE_MEANS, JUDGE_READS
from harness.config import Experiment
from harness.contracts.method import Method
from harness.data.identity import fingerprint
from harness.judge.judges import pinned
from harness.judge.lm_eval import read_tasks
from harness.pipeline.names import BASE, Board, Row
from harness.pipeline.shared import CHECKPOINT_STEPS, Shared
from harness.pipeline.trials import edges
from harness.registry import source_files
from harness.store.stage import Stage


@dataclass(frozen=True)
class Cell:
    """One run of one row on one board, and the stages that end in its scores.

    Attributes:
        row: None for the reference policy.
        train: None for the reference policy, which is not trained here.
        also: lm-evaluation-harness on its weights, where that is asked for; no rank hangs on it.
    """

    board: Board
    row: Row | None
    seed: int
    train: Stage | None
    score: Stage
    also: Stage | None = None

    @property
    def ends(self) -> tuple[Stage, ...]:
        """What is wanted of it; all else is made on the way."""
        return (self.score,) if self.also is None else (self.score, self.also)


@dataclass(frozen=True)
class Layout:
    """The stages of one board; equal stages of several boards have equal keys and are made once.

    Attributes:
        purse: of this run: what `judge.max_cost` limits together.
        backend: what writes completions.
    """

    experiment: Experiment
    board: Board
    reference: Method
    purse: str
    backend: Mapping[str, Any]

    def cells(self, rows: Sequence[Row]) -> Iterator[Cell]:
        """Every run of the board, that of the untrained policy first."""
        for seed in range(self.experiment.seeds):
            completions = self._generate(None, seed, f"generate {self._at(BASE, seed)}")
            scores = self._score(completions, BASE, seed)
            # It does not sample: the untrained policy has one result, whatever the seed.
            also = self._also(None, BASE, seed) if seed == 0 else None
            yield Cell(self.board, None, seed, None, scores, also)
        for row in rows:
            for seed in range(self.experiment.seeds):
                name = f"{row.method.name} {row.label}".strip()
                train = self._train(row, seed, f"train {self._at(name, seed)}", self._choice(row))
                completions = self._generate(train, seed, f"generate {self._at(name, seed)}")
                scores = self._score(completions, name, seed)
                yield Cell(self.board, row, seed, train, scores, self._also(train, name, seed))

    def _at(self, name: str, seed: int) -> str:
        return f"{name}, seed {seed}, {self.board.name}"

    @cached_property
    def _shared(self) -> Shared:
        return Shared(self.experiment, self.board, self.backend)

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
        primary = self.board.task.primary
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
            **self._shared.numbers, "method": row.path, "method_settings": dict(row.settings),
            "seed": seed, "epochs": b.epochs, "pairs_per_step": b.pairs_per_step,
            "micro_pairs": b.micro_pairs, "micro_tokens": b.micro_tokens,
            "processes": self.experiment.processes, "optimisation": optimisation,
            "lora": self._shared.lora, "checkpoint_steps": CHECKPOINT_STEPS,
        }  # fmt: skip
        if b.unit == "flops":
            settings["equal_to"] = {
                "reads": list(self.reference.reads), "whole_step": self.reference.whole_step,
                "reward_epochs": b.reward_model.epochs,
                "moving_reference": self.reference.moving_reference is not None,
            }  # fmt: skip
        inputs = self._shared.scoring
        if choice is not None:
            inputs["choice"] = choice
        reads = set(row.method.reads)
        moving = row.method.moving_reference is not None
        if "entropy" in reads or ("reference" in reads and not moving):
            inputs["reference"] = self._shared.reference_pass(entropy="entropy" in reads)
        if "mismatched" in reads:
            inputs["mismatched"] = self._shared.mismatched
        if {"margin", "rewards"} & reads:
            inputs["margins"] = self._shared.margins
            settings["reward_epochs"] = b.reward_model.epochs
        plugins = tuple(source_files(row.path, "methods"))
        return Stage("train", label, "harness.train.cell:train_cell", settings, inputs, plugins)

    def _generate(self, trained: Stage | None, seed: int, label: str, split: str = "test") -> Stage:
        temperatures = self.board.task.decoded
        return self._shared.completions(
            "generate", label, trained, splits=[split], samples=self.experiment.budget.samples,
            temperatures=temperatures,
            # Another stream than the samples that pairs are made of; the same for every method.
            seed=1000 * (self.experiment.data_seed + 1) + seed,
            logprobs=1.0 in temperatures,
        )  # fmt: skip

    def _score(self, completions: Stage, name: str, seed: int) -> Stage:
        settings, inputs = self._shared.asked, {"completions": completions}
        if self.board.task.contest is not None:
            settings = {**settings, "unreadable": self.experiment.judge.unreadable}
            inputs["verdicts"] = self._judge(completions, name, seed)
        return Stage(
            "score", f"score {self._at(name, seed)}", "harness.judge.score:score", settings,
            inputs, self._shared.plugins,
        )  # fmt: skip

    def _judge(self, completions: Stage, name: str, seed: int) -> Stage:
        contest, judge = self.board.task.contest, self.experiment.judge
        assert contest is not None, "only a contest is judged"
        every, is_ = asdict(judge), pinned(judge, contest)
        used = {key: is_[key] for key in ("kind", *JUDGE_READS[is_["kind"]])}
        means = {key: every[key] for key in JUDGE_MEANS} | {"purse": self.purse}
        return Stage(
            "judge", f"judge {self._at(name, seed)}", "harness.judge.contest:judge",
            {**self._shared.asked, "judge": {**used, "retest": judge.retest}, "judge_is": is_},
            {"completions": completions}, self._shared.plugins, means=means,
        )  # fmt: skip

    def _also(self, trained: Stage | None, name: str, seed: int) -> Stage | None:
        x = self.experiment
        if x.also_lm_eval is None:
            return None
        asked = read_tasks(x.also_lm_eval)
        content = fingerprint(asked.folder) if asked.folder else None
        settings = {
            **asked._asdict(), "limit": x.lm_eval_limit, "content": content,
            "version": version("lm_eval"),
        }  # fmt: skip
        inputs = {"policy": self._shared.policy} | ({"trained": trained} if trained else {})
        return Stage(
            "lm-eval", f"lm-eval {self._at(name, seed)}", "harness.judge.lm_eval:evaluate",
            settings, inputs,
        )  # fmt: skip
