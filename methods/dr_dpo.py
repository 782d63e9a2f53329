"""Dr. DPO: DPO that trusts the pairs with a small loss, against wrong labels."""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2407.07880; junkangwu/Dr_DPO trainers.py:269-270 @3c0678f",
    formula="-beta_prime * log mean exp(-l / beta_prime) over the step, for every pair of it,"
    " l = -log sigmoid(beta * (h_w - h_l))",
    disagreements=(
        "The authors' mean is over the pairs of one device's micro-batch; here it is over all "
        "pairs of an optimizer step.",
    ),
    # 0.1 and 1: DPO's and the authors' defaults; the others stand around them.
    grid={"beta": (0.01, 0.05, 0.1), "beta_prime": (0.5, 1.0, 2.0)},
    bounds={"beta": "(0, inf)", "beta_prime": "(0, inf)"},
    coupled=True,
    at_reference=math.log(2),
)
def dr_dpo(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, beta_prime: float = 1.0
) -> PerPair:
    """Dr. DPO: the step's soft minimum of DPO's losses, in nats, the same number for every pair.

    Its gradient is DPO's with weights in proportion to exp(-loss / beta_prime), which sum to 1: a
    pair that the policy contradicts, perhaps for a wrong label, weighs little. One pair is DPO,
    and so is the limit of a large `beta_prime`.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: reward per nat of log-ratio.
        beta_prime: loss, in nats, that makes a pair weigh e times less; the smaller, the fewer
            pairs count.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    trust = logsigmoid(beta * (chosen - rejected)) / beta_prime
    step = beta_prime * (math.log(len(trust)) - trust.logsumexp(0))
    return step.expand_as(trust)
