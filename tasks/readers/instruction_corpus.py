"""A task's texts, prompts and pairs out of real preference data and real instructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from harness.api import Answers, Corpus, Pair, Prompt, Sizes

from .instruction_baseline import (  # noqa: TID251 (the same folder, in a checkout as in a wheel)
    read_references,
)
from .instruction_rows import (  # noqa: TID251 (the same folder, in a checkout as in a wheel)
    Source,
    read_preferences,
)

SLOT = "{instruction}"


class RealData(NamedTuple):
    """Where the data lie, and how an instruction becomes a prompt.

    Attributes:
        pairs: labelled pairs to train on.
        asked: instructions to be judged on.
        baseline: file of other answers to them than their own.
        generator: whose answers are the baseline's.
        template: of a prompt; holds `{instruction}` once.
    """

    pairs: Source
    asked: Source
    baseline: str | None
    generator: str | None
    template: str

    def prompt(self, instruction: str) -> str:
        """The prompt of an instruction; whatever else the instruction holds is left as it is."""
        return self.template.replace(SLOT, instruction)


def read_corpus(real: RealData, sizes: Sizes, rng: np.random.Generator) -> Corpus:
    """Chosen answers to learn from, the pairs' prompts, and the instructions to be judged on.

    No instruction that is judged on is ever trained on, and no validation prompt is in the texts.
    Where there are fewer pairs than were asked for, training and validation shrink alike.

    Raises:
        DataError: the data cannot be read, or nothing of them can be used.
    """
    references = read_references(real.asked, real.baseline, real.generator)
    preferences = read_preferences(real.pairs, held_out=references.held_out)
    pairs = [preferences.pairs[i] for i in rng.permutation(len(preferences.pairs))]
    share = sizes.validation / max(1, sizes.train + sizes.validation)
    held = min(sizes.validation, max(1, int(share * len(pairs))))
    training = pairs[held:]
    tested = [references.rows[i] for i in rng.permutation(len(references.rows))[: sizes.test]]
    prompts = [
        Prompt(f"{split}-{i}", split, real.prompt(text), answer)  # type: ignore[arg-type]
        for split, some in (
            ("train", [(pair.prompt, pair.chosen) for pair in training[: sizes.train]]),
            ("validation", [(pair.prompt, pair.chosen) for pair in pairs[:held]]),
            ("test", [tuple(reference) for reference in tested]),
        )
        for i, (text, answer) in enumerate(some)
    ]
    texts = [real.prompt(pair.prompt) + pair.chosen for pair in training[: sizes.texts]]
    return Corpus(texts, prompts, {"pairs": preferences.facts, "eval": references.facts})


def labelled_pairs(
    real: RealData,
    _variant: str,
    prompts: Sequence[Prompt],
    _answers: Mapping[str, Answers],
    rng: np.random.Generator,
) -> list[Pair]:
    """The pairs of the data as they were labelled, in a random order."""
    labelled = {real.prompt(pair.prompt): pair for pair in read_preferences(real.pairs).pairs}
    found = []
    for i in rng.permutation(len(prompts)):
        prompt = prompts[i]
        pair = labelled[prompt.text]
        found.append(Pair(prompt.prompt_id, prompt.split, prompt.text, pair.chosen, pair.rejected))
    return found
