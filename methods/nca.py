"""NCA: each answer alone is told from what the reference would have said."""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2402.05369; thu-ml/Noise-Contrastive-Alignment preference_trainer.py:47 @cbb9248;"
    " huggingface/trl trl/trainer/dpo_trainer.py:1466 @f2cd577",
    formula="-log sigmoid(beta * h_w) - (log sigmoid(-beta * h_w) + log sigmoid(-beta * h_l)) / 2",
    # 0.01: the paper; 0.1: TRL's default for every loss.
    grid={"beta": (0.001, 0.01, 0.1)},
    bounds={"beta": "(0, inf)"},
    at_reference=2 * math.log(2),
    direction="at_reference",
)
def nca(policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.01) -> PerPair:
    """NCA: one loss per pair, in nats, that is smallest at a finite reward of the chosen answer.

    The chosen answer's reward is drawn to log(2), the rejected answer's to minus infinity, each
    on its own. The authors' other pairwise loss, InfoNCA, is DPO.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: reward per nat of log-ratio; the paper's alpha.
    """
    chosen = beta * (policy.chosen.total() - reference.chosen.total())
    rejected = beta * (policy.rejected.total() - reference.rejected.total())
    return -logsigmoid(chosen) - (logsigmoid(-chosen) + logsigmoid(-rejected)) / 2
