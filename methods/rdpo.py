"""R-DPO: DPO for a reward that charges for every token."""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2403.19159; LuJunru/SamPO dpo_trainer.py:904-907 @25e9631, a third party's",
    formula="-log sigmoid(beta * (h_w - h_l) + alpha * (L_w - L_l))",
    status="derived",
    disagreements=(
        "The authors released no code: the sign is that of the derivation and of SamPO's code, "
        "and the default alpha is SamPO's; oxRL has the opposite sign.",
        "alpha-DPO and gammaPO subtract the term and feed it the sizes of the batch, so that it "
        "is always 0: their R-DPO is DPO.",
    ),
    # The sweep of SimPO's comparison as it is recalled, not read again.
    grid={"beta": (0.01, 0.05, 0.1), "alpha": (0.05, 0.1, 0.5, 1.0)},
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)"},
    at_reference=lambda s: None if s["alpha"] else math.log(2),
)
def rdpo(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.1, alpha: float = 0.1
) -> PerPair:
    """R-DPO: DPO's loss per pair, in nats, with a bonus for the longer answer in the reward gap.

    From the maximum of E[reward] - alpha * length - beta * KL: the reward is beta times the
    log-ratio plus alpha times the length. The longer the chosen answer beside the rejected one,
    the smaller its gradient; between equally long answers this is DPO.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: reward per nat of log-ratio.
        alpha: price of a token, in units of reward; 0 is DPO.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    longer = policy.chosen.length - policy.rejected.length
    return -logsigmoid(beta * (chosen - rejected) + alpha * longer)
