"""IPO: the gap of log-ratios is pulled to a fixed target, from both sides."""

from typing import Literal

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2310.12036, Eq. 17; huggingface/trl trl/trainer/dpo_trainer.py:1440-1451 @f2cd577"
    "; ContextualAI/HALOs train/trainers.py:790-805 @4831988;"
    " eric-mitchell/direct-preference-optimization trainers.py:79 @f8b8c0f",
    formula="(h_w / L_w - h_l / L_l - 1 / (2 * tau))^2; reduction sum: without the lengths",
    disagreements=(
        "TRL and HALOs average log-ratios over tokens, the default here; a comment in TRL's code "
        "says that the authors confirmed it for the paper's results.",
        "The original DPO repository, MADPO's baseline and alpha-DPO without length "
        'normalisation sum them: `reduction="sum"`.',
        "TRL divides by the number of tokens before the mask is shifted: the same number unless "
        "an answer starts without a prompt.",
    ),
    # The sweep of SimPO's comparison as it is recalled, not read again.
    grid={"tau": (0.01, 0.1, 0.5, 1.0)},
    bounds={"tau": "(0, inf)"},
    at_reference=lambda s: (1 / (2 * s["tau"])) ** 2,
    direction="at_reference",
)
def ipo(
    policy: PairLogProbs,
    reference: PairLogProbs,
    *,
    tau: float = 0.1,
    reduction: Literal["mean", "sum"] = "mean",
) -> PerPair:
    """IPO: squared distance of the gap of log-ratios from 1 / (2 tau), one per pair.

    The target is the same number in both forms. A mean is shorter than a sum by the length of the
    answer, so the same `tau` asks for far more in the form "mean".

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        tau: strength of the pull to the reference, per nat; a gap of 1 / (2 tau) costs nothing.
        reduction: "mean", log-ratios per token; or "sum", over the answer.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    if reduction == "mean":
        chosen, rejected = chosen / policy.chosen.length, rejected / policy.rejected.length
    return (chosen - rejected - 1 / (2 * tau)) ** 2
