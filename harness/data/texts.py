"""The one rule by which texts are kept: the same for every method, and every loss is counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.errors import DataError

FIRST_PLACES = 3


@dataclass(frozen=True)
class KeptTexts:
    """The texts that are used, and what became of the others.

    Attributes:
        texts: as they were given, in their order.
        rows: which row each came from, to find its other columns.
        dropped: how many texts were dropped, by reason.
        places: the first places of each reason, for people.
    """

    texts: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    places: dict[str, list[str]] = field(default_factory=dict)

    @property
    def facts(self) -> dict[str, Any]:
        """What a manifest says about it."""
        return {"kept": len(self.texts), "dropped": self.dropped, "first dropped": self.places}


def keep_texts(
    texts: Sequence[str],
    place: Callable[[int], str] = "row {}".format,
    *,
    held_out: Iterable[str] = (),
) -> KeptTexts:
    """Texts without the empty, those that are held out, and all but the first of equal ones.

    Two texts are equal if they differ in white space only. A text of the test split must not be
    trained on: give the kept test texts as `held_out` when the train texts are kept.

    Args:
        texts: one per row.
        place: says where a row lies, such as `Rows.place`.
        held_out: texts that must not be among the kept ones.

    Raises:
        DataError: nothing is left; says what became of the texts.
    """
    reasons = {_form(text): "held out" for text in held_out} | {"": "empty"}
    kept = KeptTexts(dropped={"empty": 0, "held out": 0, "duplicate": 0})
    for i, text in enumerate(texts):
        form = _form(text)
        reason = reasons.get(form)
        if reason is None:
            reasons[form] = "duplicate"
            kept.texts.append(text)
            kept.rows.append(i)
            continue
        kept.dropped[reason] += 1
        first = kept.places.setdefault(reason, [])
        if len(first) < FIRST_PLACES:
            first.append(place(i))
    if not kept.texts:
        raise DataError(f"none of {len(texts)} texts can be used: {kept.dropped}")
    return kept


def _form(text: str) -> str:
    return " ".join(text.split())
