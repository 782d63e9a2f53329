"""AlphaDPO: SimPO whose target margin grows with how far the policy has left the reference."""

from typing import Literal

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, State, method


@method(
    source="arXiv:2410.10148; junkangwu/alpha-DPO scripts/dpo_trainer.py:86-108,140-148,251-257"
    " @fab3209",
    formula="-log sigmoid(beta * (u - sg[gamma_beta_ratio + alpha * z])), z the z-score of"
    " g = (a_w - a_l) - (its value under the reference), running mean and deviation from 0, in"
    " statistics corrected both over 1 - decay^steps, u = a_w - a_l",
    stop_gradient="the target margin",
    disagreements=(
        "The paper is recalled as writing gamma + alpha * M outside beta; the code, followed here, "
        "has both inside.",
        "The default, `corrected`, is not the authors' code.",
        "The authors' statistics start at 0 without correction, move per micro-batch and in "
        'evaluation, and are 0/0 while policy and reference are equal: `statistics="literal"` '
        "keeps the zero start alone.",
        "The authors' code sums log-probs unless `ln: true`, which all four configurations set; "
        "here they are means.",
        "The authors' class has beta 2.0, a ratio of 0.25 and alpha 0; the defaults here are of "
        "one of their four configurations.",
        "The authors' code has an optional label smoothing, left out here.",
    ),
    # Of the authors' four configurations, and their sweep of alpha up to 0.3.
    grid={
        "beta": (2.5, 10.0),
        "gamma_beta_ratio": (0.15, 0.4, 0.6),
        "alpha": (0.05, 0.1, 0.2, 0.3),
    },
    bounds={
        "beta": "(0, inf)",
        "gamma_beta_ratio": "[0, inf)",
        "alpha": "[0, inf)",
        "decay": "[0, 1)",
        "epsilon": "(0, inf)",
    },
    coupled=True,
    initial={"mean": 0.0, "std": 0.0, "steps": 0.0},
    only_for={"epsilon": {"statistics": ("corrected",)}},
)
def alphadpo(
    policy: PairLogProbs,
    reference: PairLogProbs,
    state: State,
    *,
    beta: float = 2.5,
    gamma_beta_ratio: float = 0.6,
    alpha: float = 0.2,
    decay: float = 0.9,
    statistics: Literal["corrected", "literal"] = "corrected",
    epsilon: float = 1e-3,
) -> tuple[PerPair, State]:
    """AlphaDPO: SimPO whose target rises with how far a pair's gap has left the reference's.

    The target of a pair is gamma_beta_ratio + alpha * z, where z scores its policy gap minus its
    reference gap, of mean log-probs per token, against running statistics that are updated before
    use. No gradient passes the target. With `alpha` 0 this is SimPO with gamma = beta *
    gamma_beta_ratio: that is the default of the authors' class, so the defaults here are those of
    their configuration for Llama-3-8B-Instruct.

    The authors' statistics ("literal") start at 0 and are used as they are: in early steps z is
    up to ten times too wide. Where the spread is exactly 0, as it is while the policy is the
    reference to the bit, z is 0 here and 0/0 there. The default
    ("corrected") is not the authors' code. It divides both averages by 1 - decay ** steps. It
    takes a spread below `epsilon` for `epsilon`, so that rounding never becomes z of order one. In
    both forms a step of one pair, which has no spread, leaves the statistics alone, and its z is 0
    while there are none; in the authors' code it is NaN. In both forms a step is all pairs of an
    optimizer step, and evaluation moves nothing; the authors' code updates per micro-batch, in
    evaluation too.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        state: running mean and standard deviation of the difference of gaps, in nats per token,
            and the number of steps that they hold.
        beta: reward per nat of mean log-prob.
        gamma_beta_ratio: target gap of an average pair, in nats per token.
        alpha: what one standard deviation adds to the target, in nats per token. It stands inside
            `beta`, as in the authors' code.
        decay: share of the old average that a step keeps.
        statistics: "corrected", or "literal" as the authors' code.
        epsilon: least standard deviation of the corrected form, in nats per token.

    Returns:
        One loss per pair, in nats, and the next state.
    """
    gap = policy.chosen.mean() - policy.rejected.mean()
    moved = (gap - (reference.chosen.mean() - reference.rejected.mean())).detach().double()
    mean, std, steps = (state[name].to(moved) for name in ("mean", "std", "steps"))
    if len(moved) > 1:
        mean = decay * mean + (1 - decay) * moved.mean()
        std = decay * std + (1 - decay) * moved.std()
        steps = steps + 1
    if statistics == "literal":
        z = ((moved - mean) / std).where(std != 0, 0.0)
    else:
        seen = 1 - decay**steps
        z = (moved - mean / seen) / (std / seen).clamp_min(epsilon)
        z = z.where(steps > 0, 0.0)
    margin = (gamma_beta_ratio + alpha * z).to(gap)
    return -logsigmoid(beta * (gap - margin)), {"mean": mean, "std": std, "steps": steps}
