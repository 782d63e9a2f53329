"""CPO that divides by the number of pairs, which the engine does once more.

trl#2615, #3716: losses that were not scaled, or twice, under gradient accumulation.
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "coupling"


@method(source="mutant of CPO, arXiv:2401.08417", bounds={"beta": "(0, inf)"})
def divided_by_the_batch(policy: PairLogProbs, *, beta: float = 0.1) -> PerPair:
    """CPO's preference term: one loss per pair, in nats, from summed log-probs."""
    losses = -logsigmoid(beta * (policy.chosen.total() - policy.rejected.total()))
    return losses / len(losses)
