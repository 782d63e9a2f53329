"""What every kind of classifier is to the harness, and which of its labels means positive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.errors import DataError

FloatArray = NDArray[np.float64]

_POSITIVE = {"positive", "pos"}
# Where nobody named the labels of a two-label model, 1 is positive by every habit of the field.
_UNNAMED = (("label_0", "label_1"), ("0", "1"))


@dataclass(frozen=True)
class LabelModel:
    """Texts to the probability of each label.

    Attributes:
        labels: their names, in the order of the columns.
        max_tokens: after how many tokens a text is cut; None where there is no limit.
        score: texts to probabilities, [texts, labels].
        length: tokens of a text before it is cut.
    """

    labels: tuple[str, ...]
    max_tokens: int | None
    score: Callable[[Sequence[str]], FloatArray]
    length: Callable[[str], int]


def positive_index(source: str, labels: Sequence[str], positive: str | None = None) -> int:
    """Which label means positive: the one that is named, or the one whose name says so.

    Raises:
        DataError: no label has the given name; or none or several could be meant.
    """
    names = tuple(label.strip().lower() for label in labels)
    if positive is not None:
        wanted = {positive.strip().lower()}
    elif names in _UNNAMED:
        wanted = {names[1]}
    else:
        wanted = _POSITIVE
    found = [i for i, name in enumerate(names) if name in wanted]
    if len(found) == 1:
        return found[0]
    problem = f"has no label '{positive}'" if positive else "does not say which label is positive"
    raise DataError(f"classifier '{source}' {problem}: name one of {', '.join(labels)}")
