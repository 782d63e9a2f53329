"""AlphaPO: SimPO in which a power of the mean token probability is the reward."""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2501.03884; huggingface/trl trl/experimental/cpo/cpo_trainer.py:696-716 @f2cd577",
    formula="-log sigmoid(beta * (q(a_w) - q(a_l)) - gamma), q(a) = (1 - exp(-alpha * a)) / alpha",
    disagreements=(
        "No code of the authors was found: this is TRL's, which takes gamma outside beta and "
        "does not clamp the exponent; here it is clamped at 80.",
        "TRL's `alpha` is 0 unless given, which is SimPO: the defaults here are those that TRL's "
        "documentation quotes from the paper's Table 3 for Mistral-Instruct.",
    ),
    # Around that one setting; the paper's own sweep was not read.
    grid={"beta": (2.0, 2.5, 10.0), "alpha": (0.1, 0.25, 0.5), "gamma": (0.1, 0.5, 1.0)},
    bounds={"beta": "(0, inf)", "alpha": "(-inf, inf)", "gamma": "[0, inf)"},
)
def alphapo(
    policy: PairLogProbs, *, beta: float = 2.5, alpha: float = 0.25, gamma: float = 0.1
) -> PerPair:
    """AlphaPO: one loss per pair, in nats, from the geometric mean of the token probabilities.

    A positive `alpha` makes the reward steeper where an answer is unlikely and a negative one
    where it is likely. The exponent -alpha * a is clamped at 80: an answer with a mean log-prob
    below -80 / alpha has no gradient.

    Args:
        policy: log-probs of the policy.
        beta: scale of the reward.
        alpha: shape of the reward; 0 is the mean log-prob, and the loss SimPO's.
        gamma: reward gap that the chosen answer must win by; outside `beta`, as in `simpo`.
    """
    gap = _reward(policy.chosen.mean(), alpha) - _reward(policy.rejected.mean(), alpha)
    return -logsigmoid(beta * gap - gamma)


def _reward(mean: PerPair, alpha: float) -> PerPair:
    """(1 - p ** -alpha) / alpha for the mean log p; its limit at 0."""
    if alpha == 0:
        return mean
    return -(-alpha * mean).clamp_max(80.0).expm1() / alpha
