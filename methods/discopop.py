"""DiscoPOP: a blend of logistic and exponential loss that a language model came up with."""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2406.08414, Eq. 5; SakanaAI/DiscoPOP src/alignment/gpo.py:349-366 @3307865",
    formula="(1 - m) * -log sigmoid(x) + m * exp(-x), x = beta * (h_w - h_l), m = sigmoid(x / tau)",
    # 0.1: TRL's default for every loss.
    grid={"beta": (0.01, 0.05, 0.1), "tau": (0.02, 0.05, 0.2)},
    bounds={"beta": "(0, inf)", "tau": "(0, 1]"},
    at_reference=(1 + math.log(2)) / 2,
    direction="unclaimed",
)
def discopop(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 0.05, tau: float = 0.05
) -> PerPair:
    """DiscoPOP: one loss per pair, in nats, neither convex nor falling around the reference.

    The blend carries a gradient: around a reward gap of 0 it hands over from the smaller of the
    two losses, log 2, to the larger, 1. Where `tau` is below (1 - log 2) / 3 this rise outweighs
    the fall of both, so that the first step pushes the chosen answer down: it is no mistake.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: reward per nat of log-ratio.
        tau: width of the blend, as a reward gap. Up to 1: beyond, the exponential of a pair that
            is very wrong outgrows its share in the blend and overflows.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    x = beta * (chosen - rejected)
    # m * exp(-x) in one exponential: alone, the second factor overflows where the first is 0.
    return -(-x / tau).sigmoid() * logsigmoid(x) + (logsigmoid(x / tau) - x).exp()
