"""AOT that sorts the gaps of the policy and forgets those of the reference.

Thought up here; the two are then matched by the order in which the pairs happen to stand.
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "order"


@method(
    source="mutant of AOT, arXiv:2406.05882",
    bounds={"beta": "(0, inf)"},
    coupled=True,
)
def half_sorted(policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.01) -> PerPair:
    """AOT: one loss per rank, in nats, of the policy's gap beside the reference's gap."""
    ours = policy.chosen.total() - policy.rejected.total()
    theirs = reference.chosen.total() - reference.rejected.total()
    return -logsigmoid(beta * (ours.sort().values - theirs))
