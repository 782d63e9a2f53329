"""Cal-DPO: DPO without a scale, and squared errors that give the rewards one."""

import math
from typing import Literal

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

SHARE = {"code": 0.5, "paper": 1.0}
"""Weight of the squared errors."""


@method(
    source="arXiv:2412.14516; tengxiao1/Cal-DPO scripts/dpo_trainer.py:1211-1216 @7d16b46",
    formula="-log sigmoid(h_w - h_l) + share * ((h_w - 1 / (2 * beta))^2 +"
    " (h_l + 1 / (2 * beta))^2), share = 1/2 (code), 1 (paper)",
    disagreements=(
        "The authors' code halves the squared errors, which the paper (recalled, not re-read) "
        'does not: the code is the default, and `form="paper"` does not halve.',
        "The code averages the squared errors over the micro-batch before it adds them to each "
        "pair's loss; this keeps them with their pair, which has the same mean over the step.",
        "The authors' configuration has beta 0.002 and their script 0.001.",
    ),
    grid={"beta": (1e-3, 2e-3)},
    bounds={"beta": "(0, inf)"},
    direction="at_reference",  # beyond its target a log-ratio is pulled back
    at_reference=lambda s: math.log(2) + SHARE[s["form"]] * 2 * (1 / (2 * s["beta"])) ** 2,
)
def cal_dpo(
    policy: PairLogProbs,
    reference: PairLogProbs,
    *,
    beta: float = 2e-3,
    form: Literal["code", "paper"] = "code",
) -> PerPair:
    """Cal-DPO: one loss per pair; the log-ratios are drawn to +-1 / (2 * beta) nats.

    `beta` stands in these targets alone, not in the preference term. At the default they are 250
    nats away: the loss starts at 62,500 and its slope is 250 per nat, against 0.05 of DPO's at
    beta 0.1. Only an optimizer that rescales or clips gradients makes that a step like another's.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: the targets are +-1 / (2 * beta) nats, plus for the chosen answer.
        form: "code" halves the squared errors, as the authors' code; "paper" does not.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    target = 1 / (2 * beta)
    calibration = (chosen - target) ** 2 + (rejected + target) ** 2
    return -logsigmoid(chosen - rejected) + SHARE[form] * calibration
