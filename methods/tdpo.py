"""TDPO: DPO that also weighs how far the policy's next-token distributions have drifted."""

import math
from typing import Literal

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PairTokens, PerPair, method


@method(
    source="arXiv:2404.11999; Vance0124/Token-level-Direct-Preference-Optimization"
    " trainers.py:46-83,142-158 @2a736ec",
    formula="-log sigmoid(beta * (h_w - h_l - alpha * (K_l - sg[K_w]))), K the KL of reference to"
    " policy summed over the answer; form tdpo1: -log sigmoid(beta * (h_w - h_l - (K_l - K_w)))",
    stop_gradient="the divergence on the chosen answer, K_w",
    disagreements=(
        "The default of the authors' function is TDPO2, as here; that of their configuration file "
        "is TDPO1, and an earlier version of the file says TDPO2.",
    ),
    grid={"beta": (0.01, 0.05, 0.1), "alpha": (0.25, 0.5, 1.0)},
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)"},
    at_reference=math.log(2),
    only_for={"alpha": {"form": ("tdpo2",)}},
)
def tdpo(
    policy: PairLogProbs,
    reference: PairLogProbs,
    divergence: PairTokens,
    *,
    beta: float = 0.1,
    alpha: float = 0.5,
    form: Literal["tdpo1", "tdpo2"] = "tdpo2",
) -> PerPair:
    """TDPO: DPO's loss per pair, in nats, less a price on the divergence of the rejected answer.

    The divergence of an answer is the sum over its positions of the KL divergence, over the whole
    vocabulary, of the reference from the policy. TDPO2 holds that of the chosen answer constant
    and lets that of the rejected one be learnt; in TDPO1 both carry a gradient. The authors'
    configuration file and function disagree on which is the default: name `form`.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        divergence: KL divergence in nats at each response token, reference to policy.
        beta: reward per nat of log-ratio and of divergence.
        alpha: weight of the divergence in TDPO2; 0 is DPO. TDPO1 has none.
        form: "tdpo2" or "tdpo1".
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    of_chosen, of_rejected = divergence.chosen.total(), divergence.rejected.total()
    if form == "tdpo1":
        drift = of_rejected - of_chosen
    else:
        drift = alpha * (of_rejected - of_chosen.detach())
    return -logsigmoid(beta * (chosen - rejected - drift))
