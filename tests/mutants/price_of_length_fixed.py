"""R-DPO with the number of a configuration in its formula: its alpha changes nothing.

Thought up here; Liger's fused losses in TRL dropped options in this way (trl#7063).
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "settings-used"


@method(
    source="mutant of R-DPO, arXiv:2403.19159",
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)"},
)
def price_of_length_fixed(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, alpha: float = 0.05
) -> PerPair:
    """R-DPO: DPO's loss per pair, in nats, with a bonus for the longer answer in the reward gap."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    longer = policy.chosen.length - policy.rejected.length
    return -logsigmoid(beta * (chosen - rejected) + 0.05 * longer)
