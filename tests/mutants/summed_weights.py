"""WPO whose weights are products over all tokens: 0 for any answer of a common length.

open-instruct sums where WPO averages: for an answer of 150 tokens its loss is exactly 0.
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PairTokens, PerPair, method

CAUGHT_BY: str = "gradient-exists"


@method(
    source="mutant of WPO, arXiv:2406.11827",
    bounds={"beta": "(0, inf)"},
    stop_gradient="the weight",
)
def summed_weights(
    policy: PairLogProbs, reference: PairLogProbs, confidence: PairTokens, *, beta: float = 0.01
) -> PerPair:
    """WPO: DPO's loss per pair, in nats, times the weights of both answers under the policy."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    drawn = policy.chosen.total() + policy.rejected.total()
    agree = confidence.chosen.total() + confidence.rejected.total()
    weight = (drawn - agree).clamp_max(0.0).exp().detach()
    return -weight * logsigmoid(beta * (chosen - rejected))
