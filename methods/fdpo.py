"""f-DPO: DPO in which another f-divergence than the reverse KL holds the policy."""

import math
from typing import Literal

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2309.16240; alecwangcq/f-divergence-dpo trainers.py:89-195 @07d9369;"
    " huggingface/trl trl/trainer/dpo_trainer.py:1400-1428 @f2cd577",
    formula="-log sigmoid(beta * (g(h_w) - g(h_l))), g(h) = h (reverse_kl), -exp(-h) (forward_kl),"
    " log sigmoid(h) (js), -exp(-alpha * h) / alpha (alpha); exponents at most 80",
    disagreements=(
        "The authors name no default divergence, and TRL's, the reverse KL, is DPO itself: the "
        "default here is Jensen-Shannon, the only other one that needs neither exponent nor "
        "alpha.",
        "The alpha here is the paper's; TRL's f_alpha_divergence_coef is 1 - alpha.",
        "The authors clamp no exponent; TRL clamps that of the alpha form, at 80 or in fp16 at "
        "11, and not that of the forward KL; this clamps both at 80.",
        "oxRL adds a DPO term to the forward KL.",
    ),
    # The authors' scripts: beta 0.1 and 0.3 on HH, 0.01 on IMDb; alpha 0.1 to 0.9.
    grid={"beta": (0.01, 0.1, 0.3), "f": ("forward_kl", "js", "alpha")},
    bounds={"beta": "(0, inf)", "alpha": "(0, 1)"},
    at_reference=math.log(2),
    only_for={"alpha": {"f": ("alpha",)}},
)
def fdpo(
    policy: PairLogProbs,
    reference: PairLogProbs,
    *,
    beta: float = 0.1,
    f: Literal["reverse_kl", "forward_kl", "js", "alpha"] = "js",
    alpha: float = 0.5,
) -> PerPair:
    """f-DPO: one loss per pair, in nats, from f' of the answer's ratio of policy to reference.

    The rewards are beta * f'(ratio) up to a constant, which the difference cancels. "reverse_kl" is
    DPO. The forward KL and the alpha divergences take exponents of minus a log-ratio: they are
    clamped at 80, beyond which an answer has no gradient.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: strength of the divergence; reward per unit of f'.
        f: the divergence: reverse or forward KL, Jensen-Shannon ("js") or "alpha".
        alpha: the paper's, only for "alpha": towards 0 this is the reverse KL, towards 1 the
            forward KL. TRL's coefficient is 1 - alpha.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    return -logsigmoid(beta * (_score(chosen, f, alpha) - _score(rejected, f, alpha)))


def _score(h: PerPair, f: str, alpha: float) -> PerPair:
    """f'(exp(h)), up to a constant."""
    if f == "reverse_kl":
        return h
    if f == "js":
        return logsigmoid(h)
    power = 1.0 if f == "forward_kl" else alpha
    # exp - 1, for the constant cancels and small powers keep their digits.
    return -(-power * h).clamp_max(80.0).expm1() / power
