"""APO-zero: the chosen answer up and the rejected one down, each against the reference."""

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2408.06266, Eq. 7; huggingface/trl trl/trainer/dpo_trainer.py:1514-1520 @f2cd577",
    formula="1 - sigmoid(beta * h_w) + sigmoid(beta * h_l)",
    grid={"beta": (0.01, 0.1, 0.5)},
    bounds={"beta": "(0, inf)"},
    at_reference=1.0,
)
def apo_zero(policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1) -> PerPair:
    """APO-zero: one loss per pair, without unit, between 0 and 2; 1 at the reference.

    For chosen answers that are better than what the model says: unlike DPO's, its slope pushes a
    chosen answer up however unlikely the rejected one has become.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: reward per nat of log-ratio.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return (-beta * chosen).sigmoid() + (beta * rejected).sigmoid()
