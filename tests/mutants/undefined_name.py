"""A module that cannot be imported: a name is used which nobody has imported.

torchtune's `torchtune/rlhf/loss/dpo.py` was merged like this, with `TypeVar`.
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "loads"

Loss = TypeVar("Loss")  # noqa: F821


@method(source="mutant of SimPO, arXiv:2405.14734, Eq. 6", bounds={"beta": "(0, inf)"})
def undefined_name(policy: PairLogProbs, *, beta: float = 2.0) -> PerPair:
    """SimPO without a margin: one loss per pair, in nats."""
    return -logsigmoid(beta * (policy.chosen.mean() - policy.rejected.mean()))
