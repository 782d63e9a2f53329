"""MallowsPO: a prompt whose answers are foreseeable gets a larger beta."""

import math
from typing import Literal

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PairTokens, PerPair, method


@method(
    source="arXiv:2405.14953; haoxian-chen/MallowsPO mallowsPO_trainer.py:1268-1280,1341-1345,1430"
    " @c188a2e",
    formula="-log sigmoid(beta * phi * (a_w - a_l)), phi = -c * log(mean of H_w and H_l), H the"
    " reference's entropy per token as a share of log(vocabulary); reduction sum: s_w - s_l;"
    " reference_free=False: h_w / L_w - h_l / L_l, or h_w - h_l",
    disagreements=(
        "The paper puts phi into DPO's loss: log-ratios to a reference, summed over the answer "
        '(`reference_free=False, reduction="sum"`). The released configuration has no reference in '
        "the gap and takes means per token: the default here.",
        "c is a constant of a data set and a model, meant to make the mean of phi 1; 0.29 is that "
        "of the authors' Llama-3 run. How the paper normalises phi was not read.",
    ),
    # 10: the released configuration; the others are SimPO's, which this is with a phi of 1.
    grid={"beta": (2.0, 2.5, 10.0)},
    bounds={"beta": "(0, inf)", "c": "(0, inf)"},
    at_reference=lambda s: None if s["reference_free"] else math.log(2),
    only_for={"reference": {"reference_free": (False,)}},
)
def mallowspo(
    policy: PairLogProbs,
    reference: PairLogProbs,
    entropy: PairTokens,
    *,
    beta: float = 10.0,
    c: float = 0.29,
    reduction: Literal["mean", "sum"] = "mean",
    reference_free: bool = True,
) -> PerPair:
    """MallowsPO (its theta form): one loss per pair, in nats, with a beta that entropy sets.

    phi is large where the reference is sure of its tokens and 0 where it knows nothing: such a
    pair costs log 2 and teaches nothing. With a constant phi, summed log-ratios and a reference
    this is DPO with beta * phi. An entropy of 0 would be an infinite phi: a share below 1e-6 is
    taken for 1e-6. One that rounding lifts above 1 is taken for 1, for phi must not be negative.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference; only read where `reference_free` is off.
        entropy: entropy of the reference per token as a share of log(vocabulary), 0 to 1.
        beta: reward per nat of the gap where phi is 1.
        c: what phi is per nat of -log(entropy share).
        reduction: "mean", log-probs per token; or "sum", over the answer.
        reference_free: leave the reference out of the gap, as the released configuration does.
    """
    chosen, rejected = policy.chosen.total(), policy.rejected.total()
    if not reference_free:
        chosen = chosen - reference.chosen.total()
        rejected = rejected - reference.rejected.total()
    if reduction == "mean":
        chosen, rejected = chosen / policy.chosen.length, rejected / policy.rejected.length
    share = (entropy.chosen.mean() + entropy.rejected.mean()) / 2
    phi = -c * share.clamp(1e-6, 1.0).log()
    return -logsigmoid(beta * phi * (chosen - rejected))
