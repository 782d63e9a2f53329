"""WPO: DPO in which a pair weighs by how likely the policy would write both answers itself."""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PairTokens, PerPair, method


@method(
    source="arXiv:2406.11827; wzhouad/WPO scripts/run_wpo.py:50-106 @a104458; huggingface/trl"
    " trl/trainer/dpo_trainer.py:1565-1576 @f2cd577",
    formula="-sg[min(w_w * w_l, 1)] * log sigmoid(beta * (h_w - h_l)), w = exp(mean over tokens of"
    " log pi(token) - log of the sum of pi^2 over the vocabulary); clamp=False: sg[w_w * w_l]",
    stop_gradient="the weight",
    disagreements=(
        "The authors clamp the product of the two weights at 1, followed here; TRL does not: "
        "`clamp=False`.",
    ),
    # 0.01: the authors'; the others are DPO's.
    grid={"beta": (0.005, 0.01, 0.05, 0.1)},
    bounds={"beta": "(0, inf)"},
)
def wpo(
    policy: PairLogProbs,
    reference: PairLogProbs,
    confidence: PairTokens,
    *,
    beta: float = 0.01,
    clamp: bool = True,
) -> PerPair:
    """WPO: DPO's loss per pair, in nats, times the weights of both answers under the policy.

    A token weighs its probability over the probability that two draws from the policy agree; an
    answer weighs the geometric mean of its tokens, so that length alone costs nothing. Under a
    uniform policy every weight is 1. No gradient passes the weight.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        confidence: log of the policy's summed squared probabilities, per token.
        beta: reward per nat of log-ratio.
        clamp: hold the product of the two weights at 1 at most, as the authors do; without it
            only the exponent has a limit, 80, at the edge of what single precision holds.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    drawn = policy.chosen.mean() + policy.rejected.mean()
    agree = confidence.chosen.mean() + confidence.rejected.mean()
    weight = (drawn - agree).clamp_max(0.0 if clamp else 80.0).exp().detach()
    return -weight * logsigmoid(beta * (chosen - rejected))
