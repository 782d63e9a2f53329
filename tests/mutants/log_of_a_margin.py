"""ODPO's offset from the logarithm of a margin that can be negative: NaN.

rycolab/odpo, `trainers.py`, takes it of scores that agree with the label; a reward model need not.
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "finite"


@method(
    source="mutant of ODPO, arXiv:2402.10571",
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)"},
)
def log_of_a_margin(
    policy: PairLogProbs,
    reference: PairLogProbs,
    margin: PerPair,
    *,
    beta: float = 0.1,
    alpha: float = 1.0,
) -> PerPair:
    """ODPO: one loss per pair, in nats, the gap of rewards reduced by the log of the margin."""
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return -logsigmoid(beta * (chosen - rejected) - alpha * margin.log())
