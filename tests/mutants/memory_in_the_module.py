"""AlphaDPO's running mean in a variable of the module, which evaluation moves like training.

alpha-DPO, `scripts/dpo_trainer.py`, and beta-DPO, `trainers.py`: the average is the trainer's, and
is moved wherever the loss is computed.
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "evaluation"

RUNNING = {"mean": 0.0}


@method(
    source="mutant of AlphaDPO, arXiv:2410.10148",
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)", "decay": "[0, 1)"},
    coupled=True,
    stop_gradient="the target margin",
)
def memory_in_the_module(
    policy: PairLogProbs,
    reference: PairLogProbs,
    *,
    beta: float = 2.5,
    alpha: float = 0.2,
    decay: float = 0.9,
) -> PerPair:
    """AlphaDPO: one loss per pair, in nats, with a target beside a running mean."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    moved = (gap - (reference.chosen.mean() - reference.rejected.mean())).detach()
    RUNNING["mean"] = decay * RUNNING["mean"] + (1 - decay) * float(moved.mean())
    return -logsigmoid(beta * (gap - alpha * (moved - RUNNING["mean"])))
