"""Training of every kind of method, as the processes that the tests start do it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import logsigmoid

from harness.contracts.logprobs import PairLogProbs
from harness.contracts.method import Method, method
from harness.data.tokens import TokenPair
from harness.engine.engines import shared
from harness.store.stage import Work
from harness.train.cell import _begin as train_one_process
from harness.train.live_reference import Follower, frozen
from harness.train.loop import fit, order
from harness.train.run import Run, validate
from harness.train.step import Learner
from harness.train.team import Team

from .models import CPU, some_pairs, tiny
from .test_step import ADAM, find, policy

PAIRS, PER_STEP = 25, 5


@method(source="for these tests", coupled=True, moving_reference=("mix", "every"))
def following(
    policy: PairLogProbs, reference: PairLogProbs, *, mix: float = 0.5, every: int = 2
) -> Tensor:
    """Statistics of the step, of a reference in memory that moves."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    old = reference.chosen.mean() - reference.rejected.mean()
    return -logsigmoid(gap - old / (1 + old.std()))


def found(name: str) -> tuple[Method, dict[str, Any]]:
    """A method by name, with settings under which all that it does happens in five steps."""
    if name == "following":
        return following, {}
    return find(name) if name != "tr_dpo" else (find(name)[0], {"alpha": 0.5, "tau": 2})


def pairs() -> list[TokenPair]:
    """Long and short ones in turn."""
    short, long = some_pairs(PAIRS, seed=1, answer=3), some_pairs(PAIRS, seed=2, answer=14)
    return [(short, long)[i % 2][i] for i in range(PAIRS)]


def train_all(work: Work, team: Team) -> Mapping[str, Any]:
    """First gradient, losses, state and weights after five steps, of every method that is named."""
    torch.use_deterministic_algorithms(True)
    return {
        "one pair": _one_pair(work, team),
        "cell": _cell(work, team),
    } | {
        f"{name}, {'lora' if lora else 'full'}": _train(work, team, name, lora)
        for lora in work.settings["lora"]
        for name in work.settings["methods"]
    }


def _train(work: Work, team: Team, name: str, lora: bool) -> dict[str, Any]:
    which, settings = found(name)
    which = which.narrowed(settings)
    settings = which.resolve(settings)
    model, reference = policy(lora), frozen(tiny(seed=1))
    engine = counting(work, team, f"calls-{name}-{lora}")
    learner = Learner(
        engine, model, which, settings, work.settings["micro"], reference,
        work.settings.get("micro_tokens", 10_000), team,
    )  # fmt: skip
    run = Run.of(learner, work.inputs, "train", where=CPU, seed=3)
    companion = None
    if which.moving_reference is not None:
        mix, every = (settings[key] for key in which.moving_reference)
        companion = Follower(model, reference, mix, every)
    steps = order(PAIRS, 1, PER_STEP, seed=0)
    run.objective()(0, steps[0], run.start())
    first = {f"gradient.{n}": p.grad.clone() for n, p in model.named_parameters()
             if p.grad is not None}  # fmt: skip
    model.zero_grad()
    state, history = fit(
        model, steps, run.objective(), ADAM, scratch=work.scratch / f"{name}-{lora}",
        checkpoint_steps=100, report=work.report, state=run.start(), companion=companion,
        leads=team.leads,
    )  # fmt: skip
    weights = {f"weight.{n}": p.detach() for n, p in model.named_parameters() if p.requires_grad}
    beside = {f"beside.{n}": t for n, t in (companion.tensors if companion else {}).items()}
    tensors = {n: t.contiguous().clone() for n, t in {**first, **weights, **beside}.items()}
    save_file(tensors, work.out / f"{name}-{lora}-{team.size}-{team.rank}.safetensors")
    return {
        "losses": history.losses, "norms": history.norms, "held_out": validate(run, state),
        "state": {key: value.tolist() for key, value in (state or {}).items()},
    }  # fmt: skip


def counting(work: Work, team: Team, name: str) -> Any:
    """The shared engine; the pairs of every call are written down."""
    place = work.out / f"{name}-{team.size}-{team.rank}"

    def engine(model: Any, sequences: Any, also: Any) -> Any:
        with place.open("a") as file:
            file.write(f"{len(sequences) // 2}\n")
        return shared(model, sequences, also)

    return engine


def _one_pair(work: Work, team: Team) -> Mapping[str, Any]:
    """What is seen of a single pair, by which processes."""
    which = find("tdpo")[0]
    learner = Learner(
        counting(work, team, "one"), policy(lora=False), which, which.resolve(), 2,
        frozen(tiny(seed=1)), 9999, team,
    )  # fmt: skip
    with torch.no_grad():
        seen = learner.see_all(pairs()[:1])
    return {
        "seen": [float(side.total()) for pair in (seen["policy"], seen["divergence"])
                 for side in (pair.chosen, pair.rejected)],
        "called": (work.out / f"one-{team.size}-{team.rank}").exists(),
    }  # fmt: skip


def _cell(work: Work, team: Team) -> Mapping[str, Any] | None:
    """A whole cell; every process is given a folder, and one may write into it."""
    if "cell" not in work.settings:
        return None
    out = work.out / f"cell-{team.size}"
    out.mkdir(exist_ok=True)
    folder = work.inputs["world"]
    inputs = {name: folder / name for name in ("policy", "tokens", "reference")}
    scratch = work.scratch / f"cell-{team.size}"
    return train_one_process(Work(work.settings["cell"], inputs, out, scratch, work.report), team)
