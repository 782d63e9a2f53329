"""EXO: the divergence from the policy's preference to the label's, not the other way round."""

import math
from collections.abc import Mapping
from typing import Any, Literal

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


def _at_reference(settings: Mapping[str, Any]) -> float:
    """The loss at q = 1/2."""
    epsilon, paper = settings["epsilon"], settings["form"] == "paper"
    return -math.log(2) - (math.log(epsilon) + (math.log1p(-epsilon) if paper else 0.0)) / 2


@method(
    source="arXiv:2402.00856, Eq. 16; haozheji/exact-optimization src/align_stage/loss.py"
    " (exo-pref) @a8ab360; huggingface/trl trl/trainer/dpo_trainer.py:1453-1464 @f2cd577",
    formula="q * log(q) + (1 - q) * log((1 - q) / epsilon), q = sigmoid(beta * (h_w - h_l)); form"
    " paper: q * log(q / (1 - epsilon)) for the first term",
    disagreements=(
        "The authors' code takes log(1 - epsilon) for 0 and log(epsilon) for -10, the defaults "
        'here; the paper divides the first q by 1 - epsilon: `form="paper"`.',
        "TRL has the paper's form and recommends an epsilon of 1e-3.",
    ),
    # beta: the authors' scripts for IMDb (0.1), and for TL;DR and HH (0.5).
    grid={"beta": (0.01, 0.1, 0.5), "epsilon": (math.exp(-10), 1e-3)},
    bounds={"beta": "(0, inf)", "epsilon": "(0, 0.5)"},
    at_reference=_at_reference,
    direction="at_reference",
)
def exo(
    policy: PairLogProbs,
    reference: PairLogProbs,
    *,
    beta: float = 0.1,
    epsilon: float = math.exp(-10),
    form: Literal["code", "paper"] = "code",
) -> PerPair:
    """EXO: KL per pair, in nats, from the policy's preference q to the smoothed label.

    The pairwise form, EXO-pref. DPO's is the divergence the other way round, of a label without
    smoothing. The minimum is where the reward gap is -log(epsilon) as in the authors' code, and
    log((1 - epsilon) / epsilon) as in the paper. The slope vanishes far away on both sides: a pair
    that is very wrong is not repaired.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: reward per nat of log-ratio.
        epsilon: the label's probability that the rejected answer is the better one. At 0 the
            divergence is infinite. The default is exp(-10), which the authors' code has fixed.
        form: "code" leaves log(1 - epsilon) out as the authors do; "paper" has it.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    z = beta * (chosen - rejected)
    label = (math.log1p(-epsilon) if form == "paper" else 0.0, math.log(epsilon))
    right = z.sigmoid() * (logsigmoid(z) - label[0])
    return right + (-z).sigmoid() * (logsigmoid(-z) - label[1])
