"""SLiC-HF: a hinge loss on the log-probs themselves, and the likelihood of the chosen answer."""

from typing import Literal

from torch import relu

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2305.10425; ContextualAI/HALOs train/trainers.py:824-848 @4831988",
    formula="max(0, delta - s_w + s_l) - lambda_ * s_w; reduction mean: - lambda_ * a_w",
    disagreements=(
        "The authors released no code; the paper and an early version of HALOs regularise with "
        "the summed log-prob, the default here.",
        "Today's HALOs adds each token's log-prob, padding included, to the ranking loss before "
        'it averages: close to `reduction="mean"` on a batch of one, a mix of pairs or a failure '
        "on a larger one.",
        "SLiC-HF regularises towards the target of supervised fine-tuning or the best sample; "
        "with pairs alone, as in HALOs, that is the chosen answer.",
    ),
    # The sweep of SimPO's comparison as it is recalled, not read again.
    grid={"delta": (0.5, 1.0, 2.0, 10.0), "lambda_": (0.1, 0.5, 1.0, 10.0)},
    bounds={"delta": "[0, inf)", "lambda_": "[0, inf)"},
)
def slic_hf(
    policy: PairLogProbs,
    *,
    delta: float = 1.0,
    lambda_: float = 0.1,
    reduction: Literal["sum", "mean"] = "sum",
) -> PerPair:
    """SLiC-HF: what the gap of log-probs lacks to delta, plus a likelihood term; in nats.

    One loss per pair, from log-probs summed over the answer; no reference. Beyond a gap of `delta`
    the likelihood term alone remains.

    Args:
        policy: log-probs of the policy.
        delta: gap of log-probs that the chosen answer must win by, in nats.
        lambda_: weight of the likelihood term; 0 leaves only the ranking.
        reduction: log-prob in the likelihood term: "sum" over the chosen answer, or its "mean"
            per token.
    """
    likelihood = {"sum": policy.chosen.total(), "mean": policy.chosen.mean()}[reduction]
    ranking = relu(delta - policy.chosen.total() + policy.rejected.total())
    return ranking - lambda_ * likelihood
