"""R-DPO that takes the widths of the two tensors for the lengths of the answers.

One place to the right of alpha-DPO's defect: its `scripts/dpo_trainer.py` takes their heights.
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "padding"


@method(
    source="mutant of R-DPO, arXiv:2403.19159",
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)"},
)
def widths_for_lengths(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, alpha: float = 0.05
) -> PerPair:
    """R-DPO: DPO's loss per pair, in nats, with a bonus for the longer answer in the reward gap."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    longer = policy.chosen.values.shape[1] - policy.rejected.values.shape[1]
    return -logsigmoid(beta * (chosen - rejected) + alpha * longer)
