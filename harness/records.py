"""Frozen records that reach the disk, and the one form in which they do: JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from harness.errors import DataError

Split = Literal["train", "validation", "test"]
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a policy is asked to continue or to answer.

    Attributes:
        prompt_id: unique within a task.
        split: train and validation prompts make pairs, test prompts make scores; disjoint.
        text: the prompt itself.
        original: what really followed it in the data; empty where nothing did.
    """

    prompt_id: str
    split: Split
    text: str
    original: str = ""


@dataclass(frozen=True, slots=True)
class Completion:
    """One answer of one policy, as it was generated.

    Attributes:
        prompt_ids: the token ids that the policy was given, BOS included.
        ids: the token ids that it answered with, the end-of-sequence token included.
        finished: whether it ended by itself; False where the token limit cut it.
        logprob: log-prob of `ids` under the policy that wrote them, in nats.
        reference_logprob: the same under the reference policy.
        temperature: at which it was drawn; 0 is greedy.
        original: what followed the prompt in the data.
    """

    prompt_id: str
    sample: int
    prompt: str
    text: str
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    finished: bool
    logprob: float | None = None
    reference_logprob: float | None = None
    temperature: float = 1.0
    original: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said of one answer and the baseline's answer to the same prompt.

    A preference is 1 where the policy's answer is better and 0 where the baseline's is.

    Attributes:
        sample: with `temperature`, which of the policy's answers.
        shown_first: the preference where the policy's answer was shown first; None where the
            judge's answer could not be read.
        shown_second: the same where it was shown second.
        preference: the mean of both orders; 0.5 for equal answers; None unless both were read.
        asked: False for equal answers, which cost nothing.
        baseline: the baseline's answer.
    """

    prompt_id: str
    sample: int
    temperature: float
    shown_first: float | None
    shown_second: float | None
    preference: float | None
    asked: bool
    baseline: str


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt and which of them was preferred.

    Token ids are there where the answer was generated, so that training sees the very ids that
    were sampled; an answer that is only text is tokenised by the rule of `harness.data`.
    """

    pair_id: str
    split: Split
    prompt: str
    chosen: str
    rejected: str
    prompt_ids: tuple[int, ...] | None = None
    chosen_ids: tuple[int, ...] | None = None
    rejected_ids: tuple[int, ...] | None = None
    chosen_reward: float | None = None
    rejected_reward: float | None = None

    @classmethod
    def of(
        cls,
        prompt: Prompt,
        chosen: Completion,
        rejected: Completion,
        rewards: tuple[float, float],
    ) -> Pair:
        """A pair of two answers that a policy gave, with their true rewards in the same order."""
        return cls(
            prompt.prompt_id, prompt.split, prompt.text, chosen.text, rejected.text,
            chosen.prompt_ids, chosen.ids, rejected.ids, *rewards,
        )  # fmt: skip


def write_jsonl(path: Path, records: Iterable[Any]) -> None:
    """One record a line, keys in the order of the fields."""
    with path.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(asdict(record), ensure_ascii=False, allow_nan=False) + "\n")


def read_jsonl(path: Path, kind: type[R]) -> list[R]:
    """All records of a file.

    Raises:
        DataError: a line is not a record of this kind; names the file and the line.
    """
    return list(_records(path, kind))


def _records(path: Path, kind: type[R]) -> Iterator[R]:
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            row = json.loads(line)
            if row.keys() - names:
                raise DataError(f"{path}:{number}: not a {kind.__name__}: {sorted(row)}")
            yield kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in row.items()})
