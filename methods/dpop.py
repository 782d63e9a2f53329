"""DPOP: DPO with a penalty for a chosen answer that falls below the reference."""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2402.13228; LuJunru/SamPO dpo_trainer.py:891-897 @25e9631",
    formula="-log sigmoid(beta * (h_w - h_l - lambda_ * max(0, r_w - s_w)))",
    disagreements=(
        "The authors' repository, abacusai/smaug, holds no loss: the code followed is a third "
        "party's, and the default beta, 0.3, is recalled as the paper's.",
    ),
    status="derived",
    # Quoted as the paper's sweeps.
    grid={"beta": (0.1, 0.3, 1.0), "lambda_": (5.0, 50.0, 500.0)},
    bounds={"beta": "(0, inf)", "lambda_": "[0, inf)"},
    at_reference=math.log(2),
)
def dpop(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.3, lambda_: float = 50.0
) -> PerPair:
    """DPOP: one loss per pair, in nats, which a chosen answer below the reference raises.

    Where the chosen answer is at least as likely as under the reference this is DPO. There is a
    kink at equality, where training starts: the gradient at that point is DPO's.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: reward per nat of log-ratio.
        lambda_: nats of log-ratio lost per nat that the chosen answer has fallen; 0 is DPO.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return -logsigmoid(beta * (chosen - rejected - lambda_ * (-chosen).relu()))
