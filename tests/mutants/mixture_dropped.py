"""AMaPO's mixture with a fine-tuning term, computed and then not returned.

AMaPO, `scripts/amapo_trainer.py`: with its `sft_weight` the un-mixed loss is returned.
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "settings-used"


@method(
    source="mutant of AMaPO; Shiroha-Offical/AMaPO scripts/amapo_trainer.py @c6c89cc",
    bounds={"beta": "(0, inf)", "sft_weight": "[0, inf)"},
)
def mixture_dropped(policy: PairLogProbs, *, beta: float = 2.0, sft_weight: float = 0.1) -> PerPair:
    """SimPO with the likelihood of the chosen answer: one loss per pair, in nats."""
    losses = -logsigmoid(beta * (policy.chosen.mean() - policy.rejected.mean()))
    fit = -policy.chosen.mean()
    mixed = losses + sft_weight * fit  # noqa: F841
    return losses
