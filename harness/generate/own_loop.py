"""Our own way to write completions: batches of a token budget, by whatever way the model takes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from harness.data.tokens import Ids
from harness.generate.asked import Asked, Progress, Told
from harness.generate.draws import Draws
from harness.generate.ways import TOKENS, find_way


@dataclass(frozen=True)
class OwnLoop:
    """Writes with a model of this process.

    Attributes:
        model: a causal model without dropout, on its device.
        seed: of all draws, with the prompt's id and the sample.
        tokens: the budget of a batch, with answers at their longest; None: what suits the device.
    """

    model: Any
    seed: int
    tokens: int | None = None

    def __call__(
        self, asked: Sequence[Asked], most: int, ends: Collection[int], report: Progress
    ) -> Told:
        """An answer to each that is asked, in their order.

        Raises:
            DataError: the model cannot be led on token by token.
        """
        way = find_way(self.model, [each.ids for each in asked], most)
        budget = self.tokens or TOKENS.get(self.model.device.type, TOKENS["cpu"])
        found: dict[int, Ids] = {}
        for temperature in dict.fromkeys(each.temperature for each in asked):
            mine = [row for row, each in enumerate(asked) if each.temperature == temperature]
            for batch in way.batches([len(asked[row].ids) for row in mine], most, budget):
                rows = [mine[place] for place in batch]
                names = [(asked[row].prompt_id, asked[row].sample) for row in rows]
                draws = Draws.of(self.seed, names, temperature)
                answers = way.write(self.model, [asked[row].ids for row in rows], draws, most, ends)
                found.update(zip(rows, answers, strict=True))
                report(len(found), len(asked), "completions")
        return Told([found[row] for row in range(len(asked))], {"batching": way.said})
