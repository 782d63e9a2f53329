"""WPO without the denominator of its weights: a token's probability over nothing.

Thought up here; the authors' alignment divides by the sum of squared probabilities.
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PairTokens, PerPair, method

CAUGHT_BY: str = "reads-used"


@method(
    source="mutant of WPO, arXiv:2406.11827",
    bounds={"beta": "(0, inf)"},
    stop_gradient="the weight",
)
def confidence_not_used(
    policy: PairLogProbs, reference: PairLogProbs, confidence: PairTokens, *, beta: float = 0.01
) -> PerPair:
    """WPO: DPO's loss per pair, in nats, times the weights of both answers under the policy."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    weight = (policy.chosen.mean() + policy.rejected.mean()).clamp_max(0.0).exp().detach()
    return -weight * logsigmoid(beta * (chosen - rejected))
