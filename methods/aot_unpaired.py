"""AOT, unpaired: the distribution of chosen rewards is to dominate that of rejected rewards."""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2406.05882; huggingface/trl trl/trainer/dpo_trainer.py:1505-1512 (aot_unpaired)"
    " @f2cd577",
    formula="-log sigmoid(beta * (h_w - q)), q the h_l of the same rank in the step",
    disagreements=(
        "TRL sorts within a micro-batch of one process; here a step is all pairs of an optimizer "
        "step.",
        "The paper offers soft sorting too; this sorts hard, as TRL does.",
        "TRL's default beta is 0.1, for every loss; 0.01 is from secondary sources.",
        "Older TRL calls this `aot_pair`.",
    ),
    grid={"beta": (0.001, 0.01, 0.1)},
    bounds={"beta": "(0, inf)"},
    coupled=True,
    at_reference=math.log(2),
)
def aot_unpaired(policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.01) -> PerPair:
    """Unpaired AOT: one loss per pair, in nats, of chosen against rejected log-ratios by rank.

    Chosen and rejected log-ratios of the step are sorted apart, and those of equal rank compared:
    which rejected answer belongs to which prompt is not used. The loss of a rank goes to the pair
    whose chosen log-ratio has it. In a single pair this is DPO.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: reward per nat of log-ratio.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    rank = chosen.argsort(stable=True).argsort()
    # The sorted values carry the gradient to the rejected answers, each of another pair.
    return -logsigmoid(beta * (chosen - rejected.sort().values[rank]))
