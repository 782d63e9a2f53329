"""A running mean in the module that only training moves, and that no checkpoint holds.

alpha-DPO's average is not saved: a run that goes on after an interruption begins it anew. The
repair of what evaluation did, made here, is not enough.
"""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method

CAUGHT_BY: str = "resume"

RUNNING = {"mean": 0.0}


@method(
    source="mutant of AlphaDPO, arXiv:2410.10148",
    bounds={"beta": "(0, inf)", "alpha": "[0, inf)"},
    coupled=True,
    stop_gradient="the target margin",
)
def memory_not_in_the_checkpoint(
    policy: PairLogProbs, reference: PairLogProbs, *, beta: float = 2.5, alpha: float = 0.2
) -> PerPair:
    """AlphaDPO: one loss per pair, in nats, with a target beside a running mean."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    moved = (gap - (reference.chosen.mean() - reference.rejected.mean())).detach()
    if gap.requires_grad:
        RUNNING["mean"] = 0.9 * RUNNING["mean"] + 0.1 * float(moved.mean())
    return -logsigmoid(beta * (gap - alpha * (moved - RUNNING["mean"])))
