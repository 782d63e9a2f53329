"""A method that this project does not know."""

from harness.api import PairLogProbs, PerPair, method


@method(source="arXiv:2309.06657; huggingface/trl dpo_trainer.py:1437 @f2cd577", at_reference=1.0)
def outside_hinge(policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1) -> PerPair:
    """Hinge: one loss per pair, in nats, zero where the chosen answer wins by 1 / beta nats."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return (1 - beta * (chosen - rejected)).relu()
