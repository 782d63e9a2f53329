"""R-DPO fed with the sizes of the batch for the lengths of the answers: the term is always 0.

alpha-DPO, `scripts/dpo_trainer.py:192-193`; gammaPO has it too. A baseline of published tables.
"""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "not-dpo"


@method(
    source="mutant of R-DPO; junkangwu/alpha-DPO scripts/dpo_trainer.py:192-193 @fab3209",
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)"},
    at_reference=math.log(2),
)
def lengths_of_the_batch(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, alpha: float = 0.05
) -> PerPair:
    """R-DPO: DPO's loss per pair, in nats, with a bonus for the longer answer in the reward gap."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    longer = policy.chosen.mask.shape[0] - policy.rejected.mask.shape[0]
    return -logsigmoid(beta * (chosen - rejected) + alpha * longer)
