"""AOT, paired: the distribution of the policy's gaps is to dominate that of the reference's."""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2406.05882; huggingface/trl trl/trainer/dpo_trainer.py:1494-1503 (aot) @f2cd577",
    formula="-log sigmoid(beta * ((s_w - s_l) - q)), q the reference's r_w - r_l of the same rank"
    " in the step",
    disagreements=(
        "TRL sorts within a micro-batch of one process; here a step is all pairs of an optimizer "
        "step.",
        "The paper offers soft sorting too; this sorts hard, as TRL does.",
        "TRL's default beta is 0.1, for every loss; 0.01 is from secondary sources.",
        "Older TRL calls this `aot` as well, but today's `aot_unpaired` was its `aot_pair`.",
    ),
    grid={"beta": (0.001, 0.01, 0.1)},
    bounds={"beta": "(0, inf)"},
    coupled=True,
    at_reference=math.log(2),
)
def aot(policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.01) -> PerPair:
    """AOT: one loss per pair, in nats, of its policy gap against the reference gap of equal rank.

    Policy gaps and reference gaps of the step are sorted apart, and those of equal rank compared.
    The loss of a rank goes to the pair whose policy gap has it, so that it follows its pair
    wherever that stands. Where both orders agree, as in a single pair, this is DPO.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: reward per nat of log-ratio.
    """
    gaps = policy.chosen.total() - policy.rejected.total()
    targets = reference.chosen.total() - reference.rejected.total()
    rank = gaps.argsort(stable=True).argsort()
    return -logsigmoid(beta * (gaps - targets.sort().values[rank]))
