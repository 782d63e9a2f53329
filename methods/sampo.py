"""SamPO: DPO in which the longer answer counts with as many drawn tokens as the shorter one has."""

import math

import torch
from torch import Generator, Tensor
from torch.nn.functional import logsigmoid

from harness.api import LogProbs, PairLogProbs, PerPair, method


@method(
    source="arXiv:2406.10957; LuJunru/SamPO dpo_trainer.py:1030-1055 @25e9631",
    formula="-log sigmoid(beta * (d_w - d_l)), d as h, each of its two sums over min(L_w, L_l)"
    " tokens, drawn without replacement",
    disagreements=(
        "The authors' code draws anew in each forward pass, so that policy and reference are "
        "summed over other tokens, as here; `shared` takes the same tokens for both, which has "
        "less variance.",
    ),
    # The authors' script: 0.5 for Pythia 2.8B, else 0.1.
    grid={"beta": (0.01, 0.1, 0.5)},
    bounds={"beta": "(0, inf)"},
    at_reference=lambda s: math.log(2) if s["shared"] else None,
)
def sampo(
    policy: PairLogProbs,
    reference: PairLogProbs,
    rng: Generator,
    *,
    beta: float = 0.1,
    shared: bool = False,
) -> PerPair:
    """SamPO: DPO's loss per pair, in nats, from equally many tokens of both answers.

    The shorter answer keeps all its tokens; the longer one keeps as many, drawn uniformly without
    replacement. Equally long answers give DPO. The sums are not scaled back up.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        rng: where the draws come from, one number per response token.
        beta: reward per nat of log-ratio.
        shared: whether policy and reference are summed over the same drawn tokens; the authors'
            code draws for each of them, so that even a policy that is the reference has log-ratios.
    """
    keep = torch.minimum(policy.chosen.length, policy.rejected.length)
    ours = _draw(policy, rng)
    theirs = ours if shared else _draw(policy, rng)
    chosen = _sampled(policy.chosen, keep, ours[0]) - _sampled(reference.chosen, keep, theirs[0])
    rejected = (
        _sampled(policy.rejected, keep, ours[1]) - _sampled(reference.rejected, keep, theirs[1])
    )  # fmt: skip
    return -logsigmoid(beta * (chosen - rejected))


def _draw(answers: PairLogProbs, rng: Generator) -> tuple[Tensor, Tensor]:
    """A number for each response token, in the mask's order: padding neither gets nor moves one."""
    chosen, rejected = (
        torch.rand(
            int(side.mask.sum()), generator=rng, dtype=torch.float64, device=side.mask.device
        )
        for side in (answers.chosen, answers.rejected)
    )
    return chosen, rejected


def _sampled(answer: LogProbs, keep: PerPair, drawn: Tensor) -> PerPair:
    """Summed log-prob of the `keep` tokens of each answer whose drawn numbers are smallest."""
    last = torch.full(answer.mask.shape, math.inf, dtype=drawn.dtype, device=drawn.device)
    rank = last.masked_scatter(answer.mask, drawn).argsort(dim=-1, stable=True).argsort(-1)
    return LogProbs(answer.values, answer.mask & (rank < keep.unsqueeze(-1))).total()
