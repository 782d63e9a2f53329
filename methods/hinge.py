"""Hinge: DPO's reward gap under a hinge loss, as in RSO."""

from torch import relu

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2309.06657, hinge-norm; huggingface/trl trl/trainer/dpo_trainer.py:1437 @f2cd577",
    formula="max(0, 1 - beta * (h_w - h_l))",
    disagreements=("The default is RSO's gamma, 0.05; TRL's beta is 0.1 for every loss.",),
    grid={"beta": (0.01, 0.05, 0.1)},
    bounds={"beta": "(0, inf)"},
    at_reference=1.0,
)
def hinge(policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.05) -> PerPair:
    """Hinge: what a reward gap lacks to one, one loss per pair; zero beyond a gap of one.

    Also known as SLiC with normalised likelihoods: SLiC-HF's ranking term, but on log-ratios.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: reward per nat of log-ratio; a gap of 1 / beta nats costs nothing.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return relu(1 - beta * (chosen - rejected))
