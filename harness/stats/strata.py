"""Means and differences tag by tag, where prompts have tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from harness.stats.components import as_table
from harness.stats.difference import Estimate, difference, estimate

Tags = Sequence[Sequence[str]]  # of each prompt, none or several


def means_by_tag(values: npt.ArrayLike, tags: Tags, *, level: float = 0.95) -> dict[str, Estimate]:
    """The mean over seeds and the prompts of a tag, of every tag that two prompts have, sorted.

    Args:
        values: scores [seeds, prompts].
        tags: of each prompt.
        level: coverage of the intervals, each on its own.

    Raises:
        ValueError: tags of more or fewer prompts, or as `estimate` does.
    """
    table = as_table(values)
    columns = _columns(tags, table.shape[1])
    return {tag: estimate(table[:, at], level=level) for tag, at in columns.items()}


def differences_by_tag(
    a: npt.ArrayLike, b: npt.ArrayLike, tags: Tags, *, level: float = 0.95
) -> dict[str, Estimate]:
    """The paired difference on the prompts of a tag, of every tag that two prompts have, sorted.

    Its p values are those of single tests: correct them over the tags.

    Raises:
        ValueError: tags of more or fewer prompts, or as `difference` does.
    """
    first, second = as_table(a), as_table(b)
    columns = _columns(tags, first.shape[1])
    return {
        tag: difference(first[:, at], second[:, at], level=level) for tag, at in columns.items()
    }


def _columns(tags: Tags, prompts: int) -> Mapping[str, npt.NDArray[np.intp]]:
    if len(tags) != prompts:
        raise ValueError(f"tags of {len(tags)} prompts for a table of {prompts}")
    names = sorted({tag for own in tags for tag in own})
    found = {tag: np.flatnonzero([tag in own for own in tags]) for tag in names}
    return {tag: at for tag, at in found.items() if at.size >= 2}
