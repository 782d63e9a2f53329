"""A length-normalised loss that says its SimPO form needs no reference, and takes it anyway.

HALOs has the reverse: SimPO leaves the switch for the reference on and pays for its forward pass.
"""

import math
from typing import Literal

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "only-for"


@method(
    source="mutant of LN-DPO, arXiv:2411.15124",
    bounds={"beta": "(0, inf)", "gamma": "[0, inf)"},
    at_reference=lambda s: math.log1p(math.exp(s["gamma"])) if s["form"] == "ln_dpo" else None,
    only_for={"reference": {"form": ("ln_dpo",)}},
)
def reference_needed_after_all(
    policy: PairLogProbs,
    reference: PairLogProbs,
    *,
    beta: float = 2.5,
    gamma: float = 0.5,
    form: Literal["ln_dpo", "simpo"] = "ln_dpo",
) -> PerPair:
    """LN-DPO or SimPO: one loss per pair, in nats, from numbers per token."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    theirs = reference.chosen.mean() - reference.rejected.mean()
    return -logsigmoid(beta * (gap - (theirs if form == "ln_dpo" else 0)) - gamma)
