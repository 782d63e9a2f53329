"""APO-down: both answers down, at first the rejected one further."""

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2408.06266, Eq. 8; huggingface/trl trl/trainer/dpo_trainer.py:1522-1528 @f2cd577",
    formula="sigmoid(beta * h_w) + 1 - sigmoid(beta * (h_w - h_l))",
    grid={"beta": (0.01, 0.1, 0.5)},
    bounds={"beta": "(0, inf)"},
    at_reference=1.0,
    direction="at_reference",
)
def apo_down(policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1) -> PerPair:
    """APO-down: one loss per pair, without unit, between 0 and 2; 1 at the reference.

    For chosen answers that are worse than what the model says. At the reference the chosen answer
    has no slope; as soon as the rejected answer has fallen, it is pushed down too.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: reward per nat of log-ratio.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return (beta * chosen).sigmoid() + (-beta * (chosen - rejected)).sigmoid()
