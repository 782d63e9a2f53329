"""chi-PO: DPO whose reward also grows with the ratio itself, after the chi-squared divergence."""

import math

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2407.13399; unclipped form: warlockee/oxRL oxrl/algs/chipo.py @2a2bd5d",
    formula="-log sigmoid(clip(beta * (phi(h_w) - phi(h_l)), -2 * r_max, 2 * r_max)),"
    " phi(h) = exp(h) + h; r_max None: no clip",
    status="derived",
    disagreements=(
        "The paper's formula is recalled and not re-read, and no code of its authors was found; "
        "the third-party code does not clip the difference, nor does this unless r_max is given.",
        "The third-party code clamps the log-ratio to [-20, 20] before the exponent; this clamps "
        "it from above, at 80.",
        "The third-party code, whose beta 0.1 is the default, says that phi is close to DPO's "
        "near the reference, but there phi has slope 2 against DPO's 1.",
    ),
    grid={"beta": (0.005, 0.01, 0.05, 0.1)},
    bounds={"beta": "(0, inf)", "r_max": "(0, inf)"},
    at_reference=math.log(2),
)
def chipo(
    policy: PairLogProbs,
    reference: PairLogProbs,
    *,
    beta: float = 0.1,
    r_max: float | None = None,
) -> PerPair:
    """chi-PO: one loss per pair, in nats, from the answer's ratio plus its logarithm.

    For small log-ratios h, phi(h) is 1 + 2h: one beta pulls twice as hard here as in DPO. For
    large ones the ratio takes over, so that leaving the reference soon earns all reward there is.
    The ratio is computed from h clamped at 80, beyond which only the logarithm has a gradient.

    Args:
        policy: log-probs of the policy.
        reference: log-probs of the reference.
        beta: strength of the mixed divergence; reward per unit of phi.
        r_max: bound on a reward: the gap of the two is clipped to twice that, and a pair that is
            clipped has no gradient. None: no clip.
    """
    chosen = policy.chosen.total() - reference.chosen.total()
    rejected = policy.rejected.total() - reference.rejected.total()
    gap = beta * (_phi(chosen) - _phi(rejected))
    if r_max is not None:
        gap = gap.clamp(-2 * r_max, 2 * r_max)
    return -logsigmoid(gap)


def _phi(h: PerPair) -> PerPair:
    return h.clamp_max(80.0).exp() + h
