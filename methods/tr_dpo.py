"""TR-DPO: DPO whose reference follows the policy."""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2404.09656; huggingface/trl trl/trainer/dpo_config.py (sync_ref_model,"
    " ref_model_mixup_alpha, ref_model_sync_steps) @f2cd577",
    formula="-log sigmoid(beta * (h_w - h_l)), the reference moving to alpha * policy"
    " + (1 - alpha) * reference after each tau steps",
    disagreements=(
        "The paper moves the reference either a little at every step (tau 1) or wholly (alpha 1) "
        "after every tau steps; TRL's configuration, followed here, has both at once by default.",
    ),
    grid={"beta": (0.01, 0.1), "alpha": (0.3, 0.6, 1.0), "tau": (128, 512, 1024)},
    bounds={"beta": "(0, inf)", "alpha": "(0, 1]", "tau": "[1, inf)"},
    at_reference=math.log(2),
    moving_reference=("alpha", "tau"),
)
def tr_dpo(
    policy: PairLogProbs,
    reference: PairLogProbs,
    *,
    beta: float = 0.1,
    alpha: float = 0.6,
    tau: int = 512,
) -> PerPair:
    """TR-DPO: DPO's loss per pair, in nats, against a reference that the engine moves.

    `alpha` and `tau` are read by the engine and not by the loss. In a run of fewer than `tau`
    steps the reference never moves: that is DPO.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference as it stands.
        beta: reward per nat of log-ratio.
        alpha: share of the policy's weights in the reference that a move makes; 1 replaces it.
        tau: steps from move to move.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return -logsigmoid(beta * (chosen - rejected))
