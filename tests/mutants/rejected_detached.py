"""CPO whose rejected answers are cut off from the graph: only the chosen ones are learnt from.

Thought up here; a `detach` that was meant for the reference.
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "gradient-exists"


@method(
    source="mutant of CPO, arXiv:2401.08417",
    bounds={"beta": "(0, inf)"},
    stop_gradient="the log-probs of the rejected answer",
)
def rejected_detached(policy: PairLogProbs, *, beta: float = 0.1) -> PerPair:
    """CPO's preference term: one loss per pair, in nats, from summed log-probs."""
    return -logsigmoid(beta * (policy.chosen.total() - policy.rejected.detach().total()))
