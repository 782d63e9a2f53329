"""Agreement with TRL 1.16.0: its trainers' own code and our losses on the very same log-probs.

Without the extra `peers` all of it is skipped. TRL 1.16 has no trainer for unpaired BCO any more:
the running shift of `bco` has no peer here.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from accelerate.state import AcceleratorState
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from harness.api import LogProbs, PairLogProbs, SmallModel
from harness.data.tokens import TokenPair
from harness.engine.engines import Also, Sequences, padded, pair_columns
from harness.train.live_reference import Follower
from harness.train.policy import build_small
from tests.models import SHAPE, VOCABULARY, WORDS, some_pairs, tiny

from .numbers import close, load_method, wide

pytest.importorskip("trl")
pytestmark = [
    pytest.mark.filterwarnings("ignore:You are importing from 'trl.experimental'"),
    # TRL asks transformers so.
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.usefixtures("alone"),
]

PAIRS = 7


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave no trace: a trainer reports itself to TRL's makers, and moves accelerate to the CPU."""
    monkeypatch.setenv("CI", "true")  # the one switch that TRL reads this late
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


class Case(NamedTuple):
    """A method with settings here, a trainer with settings there; `factor` times ours is theirs.

    Attributes:
        flat: TRL has no reference and ours has one, under which every log-prob is 0.
        narrow: TRL computes it in fp32 only.
    """

    method: str
    settings: Mapping[str, Any]
    trainer: str
    theirs: Mapping[str, Any]
    factor: float = 1.0
    flat: bool = False
    narrow: bool = False


def dpo(loss: str, method: str, settings: Mapping[str, Any], **theirs: Any) -> Case:
    """A loss type of DPOTrainer; the beta is 0.3 unless told otherwise."""
    return Case(method, settings, "dpo", {"loss_type": [loss], "beta": 0.3, **theirs})


def cpo(loss: str, method: str, settings: Mapping[str, Any], **theirs: Any) -> Case:
    """A loss type of CPOTrainer, without the likelihood unless told otherwise."""
    return Case(method, settings, "cpo", {"loss_type": loss, "cpo_alpha": 0.0, **theirs})


def fdpo(f: str, theirs: str, **settings: Any) -> Case:
    ours = {"beta": 0.3, "f": f, **settings}
    return dpo("sigmoid", "fdpo", ours, f_divergence_type=theirs)


CASES: Mapping[str, Case] = {
    "dpo": dpo("sigmoid", "dpo", {"beta": 0.3}),
    "hinge": dpo("hinge", "hinge", {"beta": 0.3}),
    "ipo": dpo("ipo", "ipo", {"tau": 0.3, "reduction": "mean"}),
    "exo": dpo(
        "exo_pair", "exo", {"beta": 0.3, "epsilon": 0.02, "form": "paper"}, label_smoothing=0.02
    )._replace(narrow=True),
    "nca": dpo("nca_pair", "nca", {"beta": 0.3}),
    "robust": dpo("robust", "robust_dpo", {"beta": 0.3, "epsilon": 0.2}, label_smoothing=0.2),
    "bco, pairs": dpo("bco_pair", "bco", {"beta": 0.3, "shift": "none", "reduction": "sum"}),
    "sppo": dpo("sppo_hard", "sppo_hard", {"beta": 0.3, "form": "trl"}),
    "aot": dpo("aot", "aot", {"beta": 0.3}),
    "aot, unpaired": dpo("aot_unpaired", "aot_unpaired", {"beta": 0.3}),
    "apo zero": dpo("apo_zero", "apo_zero", {"beta": 0.3}),
    "apo down": dpo("apo_down", "apo_down", {"beta": 0.3}),
    "discopop": dpo("discopop", "discopop", {"beta": 0.3, "tau": 0.2}, discopop_tau=0.2),
    "ln-dpo": dpo("sigmoid_norm", "ln_dpo", {"beta": 3.0}, beta=3.0),
    "dpo and likelihood": dpo(
        "", "dpo_nll", {"beta": 0.3, "alpha": 0.7, "reduction": "tokens"},
        loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.7],
    ),
    "ld-dpo": dpo("sigmoid", "ld_dpo", {"beta": 0.3, "alpha": 0.4}, ld_alpha=0.4),
    "ld-dpo, no tail": dpo("sigmoid", "ld_dpo", {"beta": 0.3, "alpha": 0.0}, ld_alpha=0.0),
    "wpo": dpo("sigmoid", "wpo", {"beta": 0.3, "clamp": False}, use_weighting=True),
    "f-dpo, reverse kl": fdpo("reverse_kl", "reverse_kl"),
    "f-dpo, forward kl": fdpo("forward_kl", "forward_kl"),
    "f-dpo, js": fdpo("js", "js_divergence"),
    "f-dpo, alpha": fdpo("alpha", "alpha_divergence", alpha=0.5)._replace(narrow=True),
    "cpo": cpo("sigmoid", "cpo", {"beta": 0.2, "alpha": 0.6}, beta=0.2, cpo_alpha=0.6),
    "simpo": cpo("simpo", "simpo", {"beta": 2.5, "gamma": 0.7}, beta=2.5, simpo_gamma=0.7),
    "alphapo": cpo(
        "alphapo", "alphapo", {"beta": 2.5, "gamma": 0.7, "alpha": 0.25},
        beta=2.5, simpo_gamma=0.7, alpha=0.25,
    ),
    "alphapo, alpha below 0": cpo(
        "alphapo", "alphapo", {"beta": 2.5, "gamma": 0.7, "alpha": -0.5},
        beta=2.5, simpo_gamma=0.7, alpha=-0.5,
    ),
    # relu(1 - beta * gap) is beta * relu(1 / beta - gap).
    "slic-hf": cpo("hinge", "slic_hf", {"delta": 20.0, "lambda_": 0.0}, beta=0.05)._replace(
        factor=0.05
    ),
    "ipo, no reference": cpo("ipo", "ipo", {"tau": 0.3}, beta=0.3)._replace(flat=True),
    "cdpo, no reference": cpo(
        "sigmoid", "cdpo", {"beta": 0.2, "epsilon": 0.15}, beta=0.2, label_smoothing=0.15
    )._replace(flat=True),
    "kto": Case(
        "kto", {"beta": 0.3, "lambda_d": 1.2, "lambda_u": 0.9, "reduction": "mean"},
        "kto", {"beta": 0.3, "desirable_weight": 1.2, "undesirable_weight": 0.9},
    ),
    # A mean over answers there, a sum over the two answers of a pair here.
    "apo zero, unpaired": Case(
        "apo_zero", {"beta": 0.3},
        "kto", {"loss_type": "apo_zero_unpaired", "beta": 0.3}, factor=0.5,
    ),
    "simpo as tpo-l": Case(
        "simpo", {"beta": 2.5, "gamma": 0.7},
        "tpo", {"loss_type": "tpo-l", "beta": 2.5, "tpo_l_gamma": 0.7, "tpo_alpha": 0.0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_loss_and_gradient_are_those_of_trl(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    trainer = build(case, tmp_path)
    for seed in range(3):
        assert agree(case, trainer, *some_models(seed), some_pairs(PAIRS, seed)).any()
    agree(case, trainer, *some_models(3), some_pairs(1, 3))


@pytest.mark.parametrize("trainer", ["dpo", "cpo", "kto"])
def test_no_loss_type_of_trl_is_left_out(trainer: str, tmp_path: Path) -> None:
    known = make(trainer, tmp_path).args.__dataclass_fields__["loss_type"].metadata
    offered = known.get("choices") or re.findall(r"`'(\w+)'`", known["help"])
    taken = [c.theirs.get("loss_type", "kto") for c in CASES.values() if c.trainer == trainer]
    compared = {one for names in taken for one in ([names] if isinstance(names, str) else names)}
    assert compared == set(offered)


def test_the_baseline_of_kto_is_trls_above_and_below_zero(tmp_path: Path) -> None:
    pairs, models, signs = some_pairs(PAIRS), some_models(0), set()
    trainer = build(CASES["kto"], tmp_path)
    for policy, reference in (models, models[::-1]):
        moved = torch.cat(inputs(policy, reference, pairs)["mismatched"]).mean().item()
        agree(CASES["kto"], trainer, policy, reference, pairs)
        assert trainer._metrics["train"]["kl"][-1] == pytest.approx(max(0.0, moved))
        signs.add(moved > 0.1)
    assert signs == {True, False}


def test_orpo_is_trls_where_a_prompt_is_one_token(tmp_path: Path) -> None:
    case = Case("orpo", {"lambda_": 0.4, "nll": 1.0}, "orpo", {"beta": 0.4}, narrow=True)
    agree(case, build(case, tmp_path), *some_models(0), some_pairs(PAIRS, prompt=1))


def test_the_likelihood_of_orpo_covers_the_prompt_in_trl_and_not_here(tmp_path: Path) -> None:
    (policy, reference), pairs = some_models(0), some_pairs(PAIRS)
    trl = trl_loss(make("orpo", tmp_path, beta=0.4), "orpo", policy, reference, pairs)
    read = inputs(policy, reference, pairs)
    whole = logprobs(policy, [(p.prompt[:1], p.prompt[1:] + p.chosen) for p in pairs])[0]
    odds = ours("orpo", {"lambda_": 0.4, "nll": 0.0}, read).mean()
    close(trl, odds - whole.total().sum() / whole.mask.sum(), 1e-5)
    assert abs(trl - ours("orpo", {"lambda_": 0.4, "nll": 1.0}, read).mean()) > 0.01


def test_trl_ignores_the_label_smoothing_of_dpo(tmp_path: Path) -> None:
    (policy, reference), pairs = some_models(0), some_pairs(PAIRS)
    case = dpo("sigmoid", "dpo", {"beta": 0.3}, label_smoothing=0.2)
    agree(case, build(case, tmp_path), policy, reference, pairs)
    # What a flipped label would cost more is the reward gap.
    read = inputs(policy, reference, pairs)
    h = read["policy"].chosen.total() - read["reference"].chosen.total()
    h = h - (read["policy"].rejected.total() - read["reference"].rejected.total())
    cdpo = ours("cdpo", {"beta": 0.3, "epsilon": 0.2}, read)
    close(cdpo - ours("dpo", {"beta": 0.3}, read), 0.2 * 0.3 * h)
    assert abs(cdpo.mean() - ours("dpo", {"beta": 0.3}, read).mean()) > 0.001


def test_trls_smoothed_aot_of_one_pair_is_cdpo(tmp_path: Path) -> None:
    case = dpo("aot", "cdpo", {"beta": 0.3, "epsilon": 0.2}, label_smoothing=0.2)
    trainer = build(case, tmp_path)
    for seed in range(5):
        agree(case, trainer, *some_models(seed), some_pairs(1, seed))


def test_trl_does_not_clamp_the_weights_of_wpo(tmp_path: Path) -> None:
    # Answers that the policy would give itself weigh more than 1.
    (policy, reference), case = some_models(0), CASES["wpo"]
    pairs = [greedy(policy, pair) for pair in some_pairs(PAIRS)]
    agree(case, build(case, tmp_path), policy, reference, pairs)
    read = inputs(policy, reference, pairs)
    clamped = ours("wpo", {"beta": 0.3, "clamp": True}, read)
    close(clamped, ours("dpo", {"beta": 0.3}, read))
    assert (ours("wpo", case.settings, read) > 1.5 * clamped).all()


def test_trls_sppo_is_twice_the_authors(tmp_path: Path) -> None:
    case = CASES["sppo"]._replace(settings={"beta": 0.3, "form": "code"}, factor=2.0)
    agree(case, build(case, tmp_path), *some_models(0), some_pairs(PAIRS))


@pytest.mark.parametrize("coefficient", [0.2, 0.5, 0.9])
def test_trls_coefficient_of_f_dpo_is_one_minus_alpha(coefficient: float, tmp_path: Path) -> None:
    models, pairs, case = some_models(0), some_pairs(PAIRS), CASES["f-dpo, alpha"]
    right, wrong = ({**case.settings, "alpha": a} for a in (1 - coefficient, coefficient))
    theirs = {**case.theirs, "f_alpha_divergence_coef": coefficient}
    case = case._replace(settings=right, theirs=theirs)
    agree(case, build(case, tmp_path), *models, pairs)
    apart = [ours("fdpo", settings, inputs(*models, pairs)).mean() for settings in (right, wrong)]
    assert bool(abs(apart[0] - apart[1]) < 1e-3) == (coefficient == 0.5)


def test_trls_forward_kl_overflows_where_ours_is_clamped(tmp_path: Path) -> None:
    # The reference's own answers, under a policy that holds the contrary.
    case, reference = CASES["f-dpo, forward kl"], some_models(0)[1]
    policy = Table(-8 * reference.table.detach())
    policy.narrow = reference.narrow = True
    pairs = [greedy(reference, pair) for pair in some_pairs(PAIRS)]
    trl = trl_loss(build(case, tmp_path), "dpo", policy, reference, pairs)
    assert not trl.isfinite()
    assert ours("fdpo", case.settings, inputs(policy, reference, pairs)).isfinite().all()


def test_at_a_coefficient_of_one_trls_f_dpo_is_dpo(tmp_path: Path) -> None:
    theirs = {"f_divergence_type": "alpha_divergence", "f_alpha_divergence_coef": 1.0}
    case = dpo("sigmoid", "dpo", {"beta": 0.3}, **theirs)
    agree(case, build(case, tmp_path), *some_models(0), some_pairs(PAIRS))


def test_trls_simpo_adds_the_likelihood_unless_told_not_to(tmp_path: Path) -> None:
    (policy, reference), pairs, case = some_models(0), some_pairs(PAIRS), CASES["simpo"]
    theirs = {key: value for key, value in case.theirs.items() if key != "cpo_alpha"}
    trl = trl_loss(make("cpo", tmp_path, **theirs), "cpo", policy, reference, pairs)
    answers = inputs(policy, reference, pairs)["policy"].chosen
    likelihood = answers.total().sum() / answers.mask.sum()
    simpo = ours("simpo", case.settings, inputs(policy, reference, pairs)).mean()
    close(trl, simpo - likelihood)


@pytest.mark.parametrize("name", ["dpo", "ipo", "ld-dpo", "wpo"])
def test_a_real_model_under_trls_head_agrees_with_ours(name: str, tmp_path: Path) -> None:
    case, pairs, (policy, reference) = CASES[name], some_pairs(PAIRS), (tiny(seed=1), tiny(seed=2))
    trainer = make("dpo", tmp_path, models=deepcopy((policy, reference)), **case.theirs)
    trl = trl_loss(trainer, "dpo", trainer.model, trainer.ref_model, pairs)
    columns = pair_columns(padded, policy, pairs, Also(("confidence",)))
    read = {
        "policy": columns["logprobs"],
        "reference": pair_columns(padded, reference, pairs)["logprobs"].detach(),
        "confidence": columns["confidence"],
    }
    loss = ours(case.method, case.settings, read).mean()
    torch.testing.assert_close(loss, trl, rtol=1e-5, atol=1e-5)
    (loss + trl).backward()
    for here, there in zip(policy.parameters(), trainer.model.parameters(), strict=True):
        torch.testing.assert_close(here.grad, there.grad, rtol=1e-4, atol=1e-5)


def test_tr_dpo_moves_the_reference_when_and_where_trl_does(tmp_path: Path) -> None:
    method, draw = load_method("tr_dpo"), torch.Generator().manual_seed(0)
    settings = method.resolve({"alpha": 0.3, "tau": 2})
    mix, every = (settings[key] for key in method.moving_reference)
    trainer = make(
        "dpo", tmp_path, sync_ref_model=True, ref_model_mixup_alpha=0.3, ref_model_sync_steps=2
    )
    (sync,) = [c for c in trainer.callback_handler.callbacks if type(c).__name__.startswith("Sync")]
    follower = Follower(trainer.model, deepcopy(trainer.ref_model), mix, every)
    before, moves = weights(trainer.ref_model), 0
    for step in range(5):
        with torch.no_grad():
            for weight in trainer.model.parameters():
                weight.add_(torch.randn(weight.shape, generator=draw))
        now = SimpleNamespace(global_step=step + 1)
        sync.on_step_end(trainer.args, now, None, model=trainer.model)
        follower.after(step)
        close(weights(follower.reference), weights(trainer.ref_model), 1e-5)
        moves += not torch.equal(weights(trainer.ref_model), before)
        before = weights(trainer.ref_model)
    assert moves == 2


def test_the_defaults_of_tr_dpo_are_trls(tmp_path: Path) -> None:
    method, args = load_method("tr_dpo"), make("dpo", tmp_path).args
    theirs = (args.ref_model_mixup_alpha, args.ref_model_sync_steps)
    assert tuple(method.defaults[key] for key in method.moving_reference) == theirs


class Table(nn.Module):
    """A causal model in fp64, of random numbers: every logit hangs on all tokens up to it."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)
        self.narrow = False

    def logits(self, ids: Tensor) -> Tensor:
        seen = torch.arange(1, ids.shape[-1] + 1)[:, None]
        return self.table[ids].cumsum(-2) / seen.sqrt()

    def forward(
        self, input_ids: Tensor, *, labels: Tensor | None = None, **_: Any
    ) -> SimpleNamespace:
        """Logits; with labels, what TRL's fused head tells instead, though that is fp32."""
        logits = self.logits(input_ids)
        if labels is None:
            return SimpleNamespace(logits=logits)
        logp, targets = logits[:, :-1].log_softmax(-1), labels[:, 1:, None]
        taken = logp.gather(-1, targets.clamp_min(0)).masked_fill(targets < 0, 0.0).squeeze(-1)
        unread = torch.zeros_like(taken)
        return SimpleNamespace(
            log_probs=taken.float() if self.narrow else taken,
            log_sum_sq_probs=(2 * logp).logsumexp(-1).detach(),
            entropy=unread,
            mean_logits=unread,
            is_top1=unread.bool(),
        )


def some_models(seed: int) -> tuple[Table, Table]:
    """A policy, and a reference that it has left by a nat or two per answer."""
    draw = torch.Generator().manual_seed(seed)
    shape = (VOCABULARY, VOCABULARY)
    reference, moved = (torch.randn(shape, generator=draw, dtype=torch.float64) for _ in "ab")
    return Table(reference + 0.6 * moved), Table(reference)


def make(trainer: str, folder: Path, models: Sequence[Any] = (), **settings: Any) -> Any:
    """A trainer of TRL, built as its users do; its own models are the given or small ones."""
    name = trainer.upper()
    module = importlib.import_module(
        "trl" if trainer in ("dpo", "kto") else f"trl.experimental.{trainer}"
    )
    # Left at its default, the one without a value warns of its own name.
    plain = {"bf16": False, "use_cpu": True, "report_to": "none", "gradient_checkpointing": None}
    config = getattr(module, f"{name}Config")(str(folder), **plain, **settings)
    world = SmallModel(WORDS, SHAPE)
    policy, reference = models or (build_small(world, seed)[0] for seed in (0, 1))
    row = {"prompt": "the film", "chosen": " is good .", "rejected": " is bad .", "reference": "."}
    return getattr(module, f"{name}Trainer")(
        policy,
        args=config,
        train_dataset=Dataset.from_list([row]),
        processing_class=build_small(world, 0)[1],
        **({"ref_model": reference} if trainer in ("dpo", "kto") else {}),
    )


def build(case: Case, folder: Path) -> Any:
    return make(case.trainer, folder, **case.theirs)


def trl_loss(
    trainer: Any, kind: str, policy: nn.Module, reference: nn.Module, pairs: Sequence[TokenPair]
) -> Tensor:
    """The loss of one step on these pairs, batched as TRL does."""
    trainer.ref_model = reference
    loss: Tensor = trainer.compute_loss(policy, trainer.data_collator(rows(kind, pairs)))
    return loss


def rows(kind: str, pairs: Sequence[TokenPair]) -> list[dict[str, Any]]:
    """The pairs in the columns of a tokenised data set of this trainer."""
    if kind in ("dpo", "tpo"):
        return [
            {"prompt_ids": [*p.prompt], "chosen_ids": [*p.chosen], "rejected_ids": [*p.rejected]}
            for p in pairs
        ]
    if kind == "kto":
        return [
            {
                "prompt_ids": [*p.prompt],
                "completion_ids": [*y],
                "KL_completion_ids": [*z],
                "label": good,
            }
            for good in (True, False)
            for p, y, z in zip(pairs, side(pairs, good), other(side(pairs, good)), strict=True)
        ]
    return [
        {
            f"{name}_{column}": value
            for name, answer in (("chosen", p.chosen), ("rejected", p.rejected))
            for column, value in (
                ("input_ids", [*p.prompt, *answer]),
                ("attention_mask", [1] * len(p.prompt + answer)),
                ("labels", [-100] * len(p.prompt) + [*answer]),
            )
        }
        for p in pairs
    ]


def side(pairs: Sequence[TokenPair], good: bool) -> list[tuple[int, ...]]:
    return [pair.chosen if good else pair.rejected for pair in pairs]


def other(answers: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
    """Each prompt gets the answer of the one before, as in TRL; the first that of the last."""
    return [*answers[-1:], *answers[:-1]]


def logprobs(model: Table, sequences: Sequences) -> tuple[LogProbs, LogProbs]:
    """Log-probs of the answers and their confidence, one sequence at a time."""
    taken, agree = [], []
    for prompt, answer in sequences:
        ids = torch.tensor([*prompt, *answer])
        logp = model.logits(ids)[:-1].log_softmax(-1)[len(prompt) - 1 :]
        taken.append(logp.gather(-1, ids[len(prompt) :, None]).squeeze(-1))
        agree.append((2 * logp).logsumexp(-1))
    mask = pad_sequence([torch.ones(len(row)).bool() for row in taken], batch_first=True)
    return LogProbs(pad_sequence(taken, True), mask), LogProbs(pad_sequence(agree, True), mask)


def inputs(policy: Table, reference: Table, pairs: Sequence[TokenPair]) -> dict[str, Any]:
    """What a loss reads of the two models; what carries no gradient in the engine does so here."""
    prompts = [pair.prompt for pair in pairs]
    texts = [list(zip(prompts, side(pairs, good), strict=True)) for good in (True, False)]
    strange = [list(zip(prompts, other(side(pairs, good)), strict=True)) for good in (True, False)]
    here, there = ([logprobs(model, text) for text in texts] for model in (policy, reference))
    return {
        "policy": PairLogProbs(here[0][0], here[1][0]),
        "reference": PairLogProbs(there[0][0], there[1][0]).detach(),
        "confidence": PairLogProbs(here[0][1], here[1][1]),
        "mismatched": tuple(
            logprobs(policy, text)[0].total() - logprobs(reference, text)[0].total()
            for text in strange
        ),
    }


def ours(name: str, settings: Mapping[str, Any], read: Mapping[str, Any]) -> Tensor:
    reads = load_method(name).narrowed(settings).reads
    losses: Tensor = load_method(name).losses(settings, **{key: read[key] for key in reads})
    return losses


def greedy(model: Table, pair: TokenPair) -> TokenPair:
    """The same prompt with the five likeliest tokens, and the first three of them, for answers."""
    ids = [*pair.prompt]
    for _ in range(5):
        ids.append(int(model.logits(torch.tensor(ids))[-1].argmax()))
    answer = tuple(ids[len(pair.prompt) :])
    return replace(pair, chosen=answer, rejected=answer[:3])


def flat(answers: PairLogProbs) -> PairLogProbs:
    """The reference that gives every token the probability 1."""
    sides = answers.chosen, answers.rejected
    return PairLogProbs(*(LogProbs(torch.zeros_like(a.values), a.mask) for a in sides))


def weights(model: nn.Module) -> Tensor:
    return torch.cat([wide(parameter.detach()).flatten() for parameter in model.parameters()])


def agree(
    case: Case, trainer: Any, policy: Table, reference: Table, pairs: Sequence[TokenPair]
) -> Tensor:
    """Compare the loss of a step and its gradient by all that the policy is; the gradient."""
    policy.narrow = reference.narrow = case.narrow
    tolerance = 1e-5 if case.narrow else 1e-9
    trl = trl_loss(trainer, case.trainer, policy, reference, pairs)
    read = inputs(policy, reference, pairs)
    if case.flat:
        read["reference"] = flat(read["policy"])
    loss = case.factor * ours(case.method, case.settings, read).mean()
    torch.testing.assert_close(loss, trl.double(), rtol=tolerance, atol=tolerance)
    mine, theirs = (torch.autograd.grad(value, policy.table)[0] for value in (loss, trl))
    torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)
    return mine
