"""RRHF: the chosen answer must be likelier per token, and is also trained on by likelihood."""

from harness.api import LogProbs, PairLogProbs, PerPair, method


@method(
    source="arXiv:2304.05302; GanjinZero/RRHF train.py:242-277 @e1a2b61",
    formula="weight * max(0, p_l - p_w) - sft * a_w, p = s / L^eta",
    disagreements=(
        "The authors' code divides the log-probs in both terms by the width of the padded row, "
        "which depends on the batch; this counts the answer's tokens, as the paper's formula "
        "does.",
        "The authors rank many answers of a prompt by score, and sum over their pairs and over "
        "the batch, which they keep at one prompt; here the label orders two, and the step's "
        "loss is the mean over pairs.",
        "The weight of 100 is that of the authors' code.",
    ),
    grid={"weight": (1.0, 10.0, 100.0)},
    bounds={"weight": "[0, inf)", "eta": "[0, inf)", "sft": "[0, inf)"},
)
def rrhf(
    policy: PairLogProbs, *, weight: float = 100.0, eta: float = 1.0, sft: float = 1.0
) -> PerPair:
    """RRHF: a hinge per pair on the length-normalised log-probs, plus the chosen answer's NLL.

    A pair that is ordered as its label says costs the second term alone. There is no reference,
    no margin and no temperature.

    Args:
        policy: log-probs of the policy.
        weight: of the hinge.
        eta: exponent of the length: 1 for the mean log-prob per token, 0 for the sum.
        sft: weight of the chosen answer's negative log-likelihood, in nats per token.
    """
    gap = _score(policy.rejected, eta) - _score(policy.chosen, eta)
    return weight * gap.relu() - sft * policy.chosen.mean()


def _score(answer: LogProbs, eta: float) -> PerPair:
    return answer.total() / answer.length**eta
