"""SimPO: no reference, length-normalised, with a target margin."""

from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, method


@method(
    source="arXiv:2405.14734, Eq. 6; princeton-nlp/SimPO scripts/simpo_trainer.py:560-595 @1b3e8f3",
    formula="-log sigmoid(beta * (a_w - a_l) - gamma)",
    disagreements=(
        "The authors' README and configurations set gamma_beta_ratio = gamma / beta; the paper's "
        "gamma, which TRL's `simpo_gamma` is too, stands outside beta. This takes the paper's.",
        "The authors' code offers a hinge for the log-sigmoid: left out.",
        "TRL's SimPO adds the likelihood of the chosen answer unless `cpo_alpha` is 0.",
    ),
    # The released configurations: gamma up to 1.6 goes with a beta of 2 or 2.5, 3 and 5 with 10.
    grid={"beta": (2.0, 2.5, 10.0), "gamma": (0.25, 0.5, 1.0, 1.6, 3.0, 5.0)},
    bounds={"beta": "(0, inf)", "gamma": "[0, inf)"},
)
def simpo(policy: PairLogProbs, *, beta: float = 2.0, gamma: float = 1.0) -> PerPair:
    """SimPO: one loss per pair, in nats, from mean log-probs per token; no reference.

    `gamma` is the paper's: it stands outside `beta`. TRL's `simpo_gamma` is the same; the authors'
    README and configurations name `gamma_beta_ratio`, which is gamma / beta. The defaults are the
    authors' for Llama-3-Base (2.0 and a ratio of 0.5).

    Args:
        policy: log-probs of the policy.
        beta: reward per nat of mean log-prob; a mean is small, so it is far above DPO's.
        gamma: reward gap that the chosen answer must win by.
    """
    return -logsigmoid(beta * (policy.chosen.mean() - policy.rejected.mean()) - gamma)
