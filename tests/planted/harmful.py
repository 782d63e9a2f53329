"""A planted method that learns the opposite of its labels: it must end below the reference."""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(source="planted: DPO with chosen and rejected swapped")
def harmful(policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1) -> PerPair:
    """DPO's loss per pair, in nats, for the swapped pair."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return -logsigmoid(beta * (rejected - chosen))
