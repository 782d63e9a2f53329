"""A training run as its steps see it: a learner, its pairs, and what the loss reads of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from harness.contracts.logprobs import PairLogProbs, PairTokens
from harness.contracts.method import Method, State
from harness.data.token_store import load_pairs
from harness.data.tokens import TokenPair
from harness.errors import GateError
from harness.records import Split
from harness.train.evaluate import Seen, evaluate
from harness.train.live_reference import LiveReference
from harness.train.loop import Objective
from harness.train.mismatched import Mismatched, mismatch
from harness.train.reference import ReferenceCache
from harness.train.step import Learner


class References(Protocol):
    """Reference log-probs of one split, from a cache or from a model in memory."""

    def __len__(self) -> int: ...

    def rows(self, rows: Sequence[int], where: torch.device) -> PairLogProbs:
        """Log-probs of these pairs, padded to the longest of them."""


@dataclass(frozen=True)
class Ingredients:
    """What losses read beside the policy, for one split; opened only where the method names it."""

    method: Method
    reference: References | None
    rewards: tuple[Tensor, Tensor] | None
    where: torch.device
    seed: int
    entropy: ReferenceCache | None = None
    mismatched: Mismatched | None = None

    @classmethod
    def load(
        cls, method: Method, inputs: Mapping[str, Path], split: Split, *, where: torch.device,
        seed: int,
    ) -> Ingredients:  # fmt: skip
        """Open the caches of a split that the method reads."""
        reads = set(method.reads)
        cache = None
        if "entropy" in reads or ("reference" in reads and not method.moving_reference):
            cache = ReferenceCache(inputs["reference"], split)
        rewards = None
        if reads & {"margin", "rewards"}:
            found = load_file(inputs["margins"] / f"{split}.safetensors")
            rewards = (found["chosen"].to(where), found["rejected"].to(where))
        mismatched = None
        if "mismatched" in reads:
            pairs = mismatch(load_pairs(inputs["tokens"], split))
            mismatched = Mismatched(pairs, ReferenceCache(inputs["mismatched"], split))
        return cls(
            method, cache if "reference" in reads else None, rewards, where, seed,
            cache if "entropy" in reads else None, mismatched,
        )  # fmt: skip

    def rows(self, rows: Sequence[int], step: int) -> dict[str, Any]:
        """What the loss reads of these pairs in this step, by the names in its signature."""
        given: dict[str, Any] = {}
        if self.reference is not None:
            given["reference"] = self.reference.rows(rows, self.where)
        if self.entropy is not None:
            given["entropy"] = self.entropy.entropy(rows, self.where)
        if self.rewards is not None:
            index = torch.tensor(list(rows), device=self.where)
            chosen, rejected = (side[index] for side in self.rewards)
            given |= {"rewards": (chosen, rejected), "margin": chosen - rejected}
        if "rng" in self.method.reads:
            # A function of seed and step: nothing to save, and the same for any split of the step.
            word = int(np.random.SeedSequence([self.seed, step]).generate_state(1)[0])
            given["rng"] = torch.Generator(self.where).manual_seed(word)
        return {name: given[name] for name in self.method.reads if name in given}


@dataclass(frozen=True)
class Run:
    """One method on one split of the pairs.

    Raises:
        GateError: what was computed of the pairs before is of another number of them.
    """

    learner: Learner
    pairs: Sequence[TokenPair]
    ingredients: Ingredients

    def __post_init__(self) -> None:
        i = self.ingredients
        columns: dict[str, Sized | None] = {
            "reference": i.reference, "rewards": i.rewards and i.rewards[0], "entropy": i.entropy,
            "mismatched": i.mismatched,
        }  # fmt: skip
        for what, column in columns.items():
            if column is not None and len(column) != len(self.pairs):
                raise GateError(f"cached {what}: for {len(column)} pairs, not {len(self.pairs)}")

    @classmethod
    def of(
        cls, learner: Learner, inputs: Mapping[str, Path], split: Split, *, where: torch.device,
        seed: int,
    ) -> Run:  # fmt: skip
        """The pairs of a split and what the loss reads of them; `inputs` are folders of stages."""
        pairs = load_pairs(inputs["tokens"], split)
        ingredients = Ingredients.load(learner.method, inputs, split, where=where, seed=seed)
        if learner.method.moving_reference:
            live = LiveReference(
                learner.engine, learner.reference, pairs, learner.micro_pairs,
                learner.micro_tokens, learner.together,
            )  # fmt: skip
            ingredients = replace(ingredients, reference=live)
        return cls(learner, pairs, ingredients)

    @property
    def method(self) -> Method:
        """The method that is run."""
        return self.learner.method

    def start(self) -> State | None:
        """What the method remembers before the first step: named tensors, fp64."""
        if self.method.initial is None:
            return None
        return {k: torch.tensor(v, dtype=torch.float64) for k, v in self.method.initial.items()}

    def objective(self) -> Objective:
        """One step of training: gradient accumulated, mean loss and next state returned."""

        def objective(
            step: int, rows: Sequence[int], state: State | None
        ) -> tuple[float, State | None]:
            result = self.learner.accumulate_gradient(
                [self.pairs[row] for row in rows],
                lambda within: self.given([rows[i] for i in within], step),
                state,
            )
            return float(result.losses.mean()), result.state

        return objective

    def see(self, rows: Sequence[int]) -> dict[str, PairTokens]:
        """What the loss reads of the model as it stands, of these pairs; by all processes."""
        return self.learner.see_all([self.pairs[row] for row in rows])

    def given(self, rows: Sequence[int], step: int) -> dict[str, Any]:
        """What the loss reads beside that, of these pairs in this step."""
        given = self.ingredients.rows(rows, step)
        if self.ingredients.mismatched is not None:
            learner = self.learner
            given["mismatched"] = self.ingredients.mismatched.log_ratios(
                learner.engine, learner.model, rows, learner.micro_pairs,
                micro_tokens=learner.micro_tokens, team=learner.together,
            )  # fmt: skip
        return given

    def losses(self, rows: Sequence[int], seen: Seen, state: State | None) -> Tensor:
        """Losses for what is seen of a model; the state after them is thrown away."""
        given = self.given(rows, step=0)
        return evaluate(self.method, self.learner.settings, seen, given, state)[0]

    def on(self, inputs: Mapping[str, Path], split: Split) -> Run:
        """The same learner on another split."""
        i = self.ingredients
        return Run.of(self.learner, inputs, split, where=i.where, seed=i.seed)


def validate(run: Run, state: State | None) -> dict[str, Any]:
    """Loss on held-out pairs, and how often the chosen answer is the likelier one.

    The method's state is read and not moved: what evaluation returns is thrown away. The losses
    are of all pairs at once, so that those of a coupled method do not depend on micro-batches.
    """
    rows = range(len(run.pairs))
    with torch.no_grad():
        seen = run.see(rows)
        policy = seen["policy"]
        losses: list[float] = run.losses(rows, seen, state).tolist()
        gaps: list[float] = (policy.chosen.total() - policy.rejected.total()).tolist()
    finite = [loss for loss in losses if math.isfinite(loss)]
    return {
        "pairs": len(losses),
        "loss": sum(finite) / len(finite) if finite else None,
        "not_finite": len(losses) - len(finite),
        "chosen_likelier": sum(gap > 0 for gap in gaps) / len(gaps),
    }
