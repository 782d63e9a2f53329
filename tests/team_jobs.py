"""What the processes that the tests start do where no language model is needed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from harness.errors import GateError, HarnessError
from harness.store.stage import Work
from harness.train.device import device
from harness.train.loop import Optimisation, fit
from harness.train.team import Team

STEPS = 5


def steps_with_a_trap(work: Work, team: Team) -> Mapping[str, Any]:
    """Steps of a regression; one process does what the settings say, before the third."""
    (work.scratch / f"pid-{team.rank}").write_text(str(os.getpid()))
    torch.manual_seed(0)
    model, data, begun = nn.Linear(4, 1), torch.randn(STEPS * 3, 5), []

    def objective(step: int, rows: Any, state: Any) -> Any:
        if step == 2 and team.rank == work.settings["rank"]:
            trap(work.settings["trap"], model)
        begun.append(step)
        own = data[[rows[i] for i in team.share(len(rows))]]
        losses = (model(own[:, :4]).squeeze(-1) - own[:, 4]) ** 2
        torch.autograd.backward(losses.sum() / len(rows))
        team.add_gradients(model.parameters())
        return float(team.whole(losses, len(rows)).mean()), state

    _, history = fit(
        model, [[3 * i, 3 * i + 1, 3 * i + 2] for i in range(STEPS)], objective,
        Optimisation(1e-2), scratch=work.scratch, checkpoint_steps=1, report=work.report,
        leads=team.leads,
    )  # fmt: skip
    team.check_alike(dict(model.named_parameters()))
    return {"losses": history.losses, "begun": begun}


class StrangeError(Exception):
    """An exception that does not survive its journey."""

    def __init__(self, one: int, two: int) -> None:
        super().__init__("strange words")


def trap(kind: str, model: Any) -> None:
    """One way in which a process of several goes wrong."""
    if kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "exit":
        os._exit(0)
    if kind == "gate":
        raise GateError("this one process does not like it")
    if kind == "strange":
        raise StrangeError(1, 2)
    if kind == "sleep":
        time.sleep(600)
    if kind == "poison":
        with torch.no_grad():
            model.weight.fill_(float("nan"))
    if kind == "stray":
        with torch.no_grad():
            model.weight.add_(1e-3)


def late_death(work: Work, team: Team) -> Mapping[str, Any]:
    """One process says that it misses the other before anybody sees that that one is dead."""
    team.whole(torch.zeros(len(team.share(2))), 2)  # both are here
    if team.rank == 0:
        raise HarnessError("waited for in vain")
    time.sleep(0.3)
    os.kill(os.getpid(), signal.SIGKILL)
    return {}


def tell(work: Work, team: Team) -> Mapping[str, Any]:
    """Who this is, and where."""
    (work.out / f"rank-{team.rank}").write_text(f"{os.getpid()} {torch.get_num_threads()}")
    parameters = [nn.Parameter(torch.zeros(2)) for _ in range(3)]
    parameters[0].grad = torch.ones(2)
    if team.rank == 1:
        parameters[1].grad = torch.full((2,), 10.0)
    team.add_gradients(parameters)
    gradients = [None if p.grad is None else p.grad.tolist() for p in parameters]
    return {
        "rank": team.rank, "size": team.size, "device": str(device()), "gradients": gradients,
        "whole": team.whole(torch.full((len(team.share(3)),), float(team.rank)), 3).tolist(),
        "odd": team.whole(torch.tensor([float("nan"), -float("inf")][: len(team.share(2))]), 2)
        .isfinite().tolist(),
    }  # fmt: skip


def wait(work: Work, team: Team) -> Mapping[str, Any]:
    """Says its process id and waits for something that never comes."""
    place = work.out / f"pid-{team.rank}"
    place.with_suffix(".new").write_text(str(os.getpid()))
    place.with_suffix(".new").rename(place)
    time.sleep(600)
    return {}
