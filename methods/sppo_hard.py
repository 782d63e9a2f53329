"""SPPO with hard labels: log-ratios are regressed on a win and a loss that are certain."""

from typing import Literal

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2405.00675; uclaml/SPPO sppo/trainer.py:876-883 @5e61c4e;"
    " huggingface/trl trl/trainer/dpo_trainer.py:1485-1492 @f2cd577",
    formula="((h_w - 1 / (2 * beta))^2 + (h_l + 1 / (2 * beta))^2) / 2; form trl: without the / 2",
    disagreements=(
        "The authors halve the sum, as here, and TRL does not, which doubles the learning rate "
        'in effect: `form="trl"`.',
        "The authors' targets are soft, (P - 1/2) / beta with a ranking model's win probability "
        "P; hard labels are P = 1 for the chosen and 0 for the rejected answer, as in TRL.",
    ),
    grid={"beta": (0.0001, 0.001, 0.01)},
    bounds={"beta": "(0, inf)"},
    at_reference=lambda s: (0.5 / s["beta"]) ** 2 * (1 if s["form"] == "code" else 2),
    direction="at_reference",
)
def sppo_hard(
    policy: PairLogProbs,
    reference: PairLogProbs,
    *,
    beta: float = 1e-3,
    form: Literal["code", "trl"] = "code",
) -> PerPair:
    """SPPO-hard: squared error per pair, in nats squared, of log-ratios against fixed targets.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: the targets are plus and minus 1 / (2 * beta) nats: the default's are 500.
        form: "code" halves the sum of the two squares as the authors do; "trl" does not.
    """
    chosen = policy.chosen.total() - reference.chosen.total() - 0.5 / beta
    rejected = policy.rejected.total() - reference.rejected.total() + 0.5 / beta
    squares = chosen**2 + rejected**2
    return squares / 2 if form == "code" else squares
