"""SimPER: the inverse perplexity of the chosen answer against that of the rejected one."""

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2502.00883; tengxiao1/SimPER scripts/simper_trainer.py:588-591 @db08c97",
    formula="-exp(a_w) + exp(a_l)",
)
def simper(policy: PairLogProbs) -> PerPair:
    """SimPER: one loss per pair, in (-1, 1): a difference of mean token probabilities.

    The mean is the geometric one, the inverse of the perplexity. There is nothing to set, and no
    reference. An answer pulls in proportion to its mean probability, so that a very unlikely one
    hardly pulls at all.

    Args:
        policy: log-probs of the policy.
    """
    return policy.rejected.mean().exp() - policy.chosen.mean().exp()
