"""The layout: where every token of a row stands, what it sees, and which tokens predict."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness.engine.branches import Block, Layout, Rows, Sequences, fed, in_rows, lay_out

from .models import CPU

# Two answers of one prompt, with a sequence of another prompt in between; the third answer
# belongs to a prompt of one token.
BY_HAND: Sequences = [
    ((10, 11, 12), (20, 21)),
    ((50,), (60, 61, 62)),
    ((10, 11, 12), (30,)),
    ((10, 11, 12), (20, 22, 23)),
]


def test_a_layout_by_hand() -> None:
    found = lay_out(BY_HAND, CPU)
    # The prompt without its last token, then each answer without its last, begun by that token.
    assert found.ids.tolist() == [10, 11, 12, 20, 12, 12, 20, 22, 50, 60, 61]
    assert found.positions.tolist() == [0, 1, 2, 3, 2, 2, 3, 4, 0, 1, 2]
    assert found.group.tolist() == [0] * 8 + [1] * 3
    assert found.branch.tolist() == [0, 0, 1, 1, 2, 3, 3, 3, 1, 1, 1]
    # In the order of the sequences, whatever order the groups have.
    assert found.predicts.tolist() == [2, 3, 8, 9, 10, 4, 5, 6, 7]
    assert found.blocks == (
        Block((0, 0), (0, 2)),
        Block((0, 2), (2, 4)),
        Block((0, 2), (4, 5)),
        Block((0, 2), (5, 8)),
        # A prompt of one token has nothing of its own: its branch begins with it.
        Block((8, 8), (8, 11)),
    )
    assert found.longest == 3
    assert fed(BY_HAND) == 11


def ids(least: int, most: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(0, 9), min_size=least, max_size=most).map(tuple)


@st.composite
def sequences(draw: st.DrawFn) -> Sequences:
    """Answers to a few prompts, which are drawn so that some of them begin others."""
    prompts = draw(st.lists(ids(1, 4), min_size=1, max_size=4))
    answer = st.tuples(st.sampled_from(prompts), ids(1, 4))
    return draw(st.lists(answer, min_size=1, max_size=8))


def whole(found: Layout) -> torch.Tensor:
    """[tokens, tokens]: whether the token of the row sees that of the column."""
    every = torch.arange(len(found.ids))
    return found.sees(every[:, None], every[None, :])


@given(sequences())
def test_a_token_that_predicts_sees_its_own_sequence_and_nothing_else(drawn: Sequences) -> None:
    """By its definition: what it sees, in the order of positions, is what came before it alone."""
    found = lay_out(drawn, CPU)
    sees, predicts = whole(found), iter(found.predicts.tolist())
    for prompt, answer in drawn:
        before = [*prompt, *answer]
        for step in range(len(answer)):
            seen = sees[next(predicts)].nonzero().squeeze(1)
            by_position = seen[found.positions[seen].argsort()]
            stretch = len(prompt) + step
            assert found.positions[by_position].tolist() == list(range(stretch))
            assert found.ids[by_position].tolist() == before[:stretch]
    assert next(predicts, None) is None


@given(sequences())
def test_blocks_say_what_the_mask_says(drawn: Sequences) -> None:
    found = lay_out(drawn, CPU)
    seen = torch.zeros(len(found.ids), len(found.ids), dtype=torch.bool)
    filled = []
    for block in found.blocks:
        (first, last), (start, end) = block.prefix, block.own
        seen[start:end, first:last] = True
        seen[start:end, start:end] = torch.ones(end - start, end - start).tril().bool()
        filled += range(start, end)
    assert torch.equal(seen, whole(found))
    assert filled == list(range(len(found.ids))), "every token is a query of one block"
    assert found.longest == max(block.own[1] - block.own[0] for block in found.blocks)


@given(sequences())
def test_every_prompt_is_fed_once_and_counted_so(drawn: Sequences) -> None:
    found = lay_out(drawn, CPU)
    assert len(found.ids) == fed(drawn)
    assert len(set(found.predicts.tolist())) == sum(len(answer) for _, answer in drawn)
    prompts = {prompt for prompt, _ in drawn}
    assert int((found.branch == 0).sum()) == sum(len(prompt) - 1 for prompt in prompts)
    # Nothing of a prompt of one token is shared, so that its answers stand apart.
    apart = sum(len(prompt) == 1 for prompt, _ in drawn)
    groups = apart + sum(len(prompt) > 1 for prompt in prompts)
    assert len(set(found.group.tolist())) == groups


# Rows for kernels that take a dense mask


def taken_apart(found: Layout, rows: Rows) -> torch.Tensor:
    """The layout's own mask, read back from the rows; what is lost is False."""
    width = rows.tokens.shape[1]
    count = len(found.ids)
    seen = torch.zeros(count, count, dtype=torch.bool)
    row = rows.where // width
    for query in range(count):
        for key in range(count):
            if row[query] == row[key]:
                places = rows.where[[query, key]] % width
                seen[query, key] = rows.mask[row[query], 0, places[0], places[1]]
    return seen


@given(sequences())
def test_rows_lose_no_token_and_groups_do_not_see_each_other(drawn: Sequences) -> None:
    found = lay_out(drawn, CPU)
    rows = in_rows(found)
    assert rows.tokens.flatten()[rows.where].tolist() == list(range(len(found.ids)))
    assert torch.equal(taken_apart(found, rows), whole(found))


@given(sequences())
def test_real_tokens_of_rows_never_see_padding(drawn: Sequences) -> None:
    found = lay_out(drawn, CPU)
    rows = in_rows(found)
    count, _, width, _ = rows.mask.shape
    real = torch.zeros(count * width, dtype=torch.bool)
    real[rows.where] = True
    real = real.view(count, width)
    mask = rows.mask[:, 0]
    assert not (mask & real[:, :, None] & ~real[:, None, :]).any()
    # Padding sees itself alone: a softmax over nothing is not a number.
    eye = torch.eye(width, dtype=torch.bool).expand(count, -1, -1)
    assert torch.equal(mask[~real], eye[~real])


@given(sequences())
def test_rows_are_no_wider_than_the_widest_group_and_groups_share_them(drawn: Sequences) -> None:
    found = lay_out(drawn, CPU)
    rows = in_rows(found)
    sizes = torch.bincount(found.group)
    assert rows.tokens.shape[1] == int(sizes.max())
    # The first place that has room: no two rows are less than half full.
    used = torch.bincount(rows.where // rows.tokens.shape[1])
    assert len(rows.tokens) == len(used)
    assert int((used * 2 <= rows.tokens.shape[1]).sum()) <= 1


@pytest.mark.parametrize(("sizes", "count"), [((8, 4, 4), 2), ((5, 5, 5), 3), ((6, 3, 2, 1), 2)])
def test_groups_share_a_row_where_they_fit(sizes: Sequence[int], count: int) -> None:
    drawn = [((prompt,), (1,) * size) for prompt, size in enumerate(sizes)]
    assert len(in_rows(lay_out(drawn, CPU)).tokens) == count
