"""Means and differences tag by tag."""

from __future__ import annotations

import numpy as np
import pytest

from harness.stats.difference import difference, estimate
from harness.stats.strata import differences_by_tag, means_by_tag

TAGS = [["code"], ["code", "long"], ["poem"], [], ["long"], ["code"]]
A = np.random.default_rng(1).normal(size=(3, 6))
B = np.random.default_rng(2).normal(size=(3, 6))


def test_a_tag_is_the_table_of_its_prompts() -> None:
    found = means_by_tag(A, TAGS)
    assert list(found) == ["code", "long"]  # one poem is too few for an interval
    assert found["code"] == estimate(A[:, [0, 1, 5]])
    assert found["long"] == estimate(A[:, [1, 4]])


def test_differences_are_paired_within_a_tag() -> None:
    found = differences_by_tag(A, B, TAGS, level=0.9)
    assert found["code"] == difference(A[:, [0, 1, 5]], B[:, [0, 1, 5]], level=0.9)


def test_prompts_without_tags_have_no_strata() -> None:
    assert means_by_tag(A, [[]] * 6) == {}


def test_tags_of_other_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="tags of 5 prompts for a table of 6"):
        means_by_tag(A, TAGS[:5])
