"""AlphaDPO's running statistics from zero, uncorrected, and divided by as they are.

alpha-DPO, `scripts/dpo_trainer.py`: 0/0 while the policy is the reference, and z-scores ten times
too wide in the first steps.
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, State, method

CAUGHT_BY: str = "finite"


@method(
    source="mutant of AlphaDPO, arXiv:2410.10148",
    bounds={"beta": "(0, inf)", "gamma_beta_ratio": "[0, inf)", "alpha": "[0, inf)"},
    coupled=True,
    initial={"mean": 0.0, "std": 0.0},
    stop_gradient="the target margin",
)
def zero_start_statistics(
    policy: PairLogProbs,
    reference: PairLogProbs,
    state: State,
    *,
    beta: float = 2.5,
    gamma_beta_ratio: float = 0.6,
    alpha: float = 0.2,
) -> tuple[PerPair, State]:
    """AlphaDPO: one loss per pair, in nats, with a target from running statistics; the state."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    moved = (gap - (reference.chosen.mean() - reference.rejected.mean())).detach().double()
    spread = (moved - moved.mean()).square().mean().sqrt()
    mean = 0.9 * state["mean"].to(moved) + 0.1 * moved.mean()
    std = 0.9 * state["std"].to(moved) + 0.1 * spread
    margin = gamma_beta_ratio + alpha * (moved - mean) / std
    return -logsigmoid(beta * (gap - margin.to(gap))), {"mean": mean, "std": std}
