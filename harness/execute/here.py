"""Carries out stages on this machine, in as many processes as there is work and room for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from graphlib import TopologicalSorter

from harness.errors import RequestError
from harness.execute.crew import Crew
from harness.execute.events import Event, Finished, Outcome, Progress, Started, Waiting
from harness.execute.plan import finished, outstanding, reachable
from harness.execute.worker import Message
from harness.store.manifest import Manifest
from harness.store.stage import Stage
from harness.store.store import Store


def carry_out(
    stages: Iterable[Stage], store: Store, *, workers: int, listen: Callable[[Event], None]
) -> dict[str, Outcome]:
    """Brings all stages to an end, and says how each of them, and of their inputs, ended.

    Stages that are ready are begun in the order in which they are given. A failure ends nothing
    but what was to be built on it. No process is started where there is nothing to do.

    Args:
        stages: what is wanted; their inputs are found through them.
        store: where the results are kept.
        workers: how many stages at once.
        listen: is told what happens, in this process and in the order in which it does.

    Returns:
        Outcomes by the key of the stage.

    Raises:
        RequestError: no worker is allowed.
        KeyboardInterrupt: as it came, after the workers were stopped.
    """
    if workers < 1:
        raise RequestError(f"cannot work with {workers} workers: at least 1")
    stages = list(stages)
    everything = reachable(stages)
    ended = finished(everything, store)
    needed = outstanding(stages, ended)
    run = _Run({key: everything[key] for key in everything if key in needed}, listen)
    for key, stage in everything.items():
        if key not in needed:
            store.tidy(stage)
            run.settle(stage, _earlier(ended.get(key)))
    with Crew(workers, store) as crew:
        run.work(crew)
    return run.outcomes


class _Run:
    """What is left to do, and how the rest ended."""

    def __init__(self, needed: dict[str, Stage], listen: Callable[[Event], None]) -> None:
        self.outcomes: dict[str, Outcome] = {}
        self._needed = needed
        self._listen = listen
        self._rank = {key: rank for rank, key in enumerate(needed)}
        graph = {key: _keys(stage) & needed.keys() for key, stage in needed.items()}
        self._order: TopologicalSorter[str] = TopologicalSorter(graph)
        self._order.prepare()
        self._ready: list[str] = []

    def work(self, crew: Crew) -> None:
        while self._order.is_active():
            self._begin(crew)
            if self._order.is_active():
                for stage, message in crew.hear():
                    self._take(stage, message)

    def settle(self, stage: Stage, outcome: Outcome) -> None:
        self.outcomes[stage.key] = outcome
        if stage.key in self._needed:
            self._order.done(stage.key)
        self._listen(Finished(stage, outcome))

    def _begin(self, crew: Crew) -> None:
        """Gives out what is ready; what can never be made is settled on the way."""
        self._ready += self._order.get_ready()
        while self._ready and crew.has_room():
            self._ready.sort(key=self._rank.__getitem__)
            stage = self._needed[self._ready.pop(0)]
            if (obstacle := self._obstacle(stage)) is None:
                crew.give(stage)
            else:
                self.settle(stage, obstacle)
                self._ready += self._order.get_ready()

    def _obstacle(self, stage: Stage) -> Outcome | None:
        for name, source in stage.inputs.items():
            outcome = self.outcomes[source.key]
            if outcome.status == "failed":
                return Outcome("skipped", f"because {source.label} failed")
            if not outcome.usable and not (name in stage.tolerates and outcome.lasting):
                return Outcome(outcome.status, outcome.reason)
        return None

    def _take(self, stage: Stage, message: Message) -> None:
        if isinstance(message, Outcome):
            self.settle(stage, message)
        elif isinstance(message, tuple):
            self._listen(Progress(stage, *message))
        else:
            self._listen(Started(stage) if message == "started" else Waiting(stage))


def _keys(stage: Stage) -> set[str]:
    return {source.key for source in stage.inputs.values()}


def _earlier(manifest: Manifest | None) -> Outcome:
    if manifest is None:
        return Outcome("cached", "no longer kept, and not needed: what is built on it is complete")
    status = "cached" if manifest.status == "done" else manifest.status
    return Outcome(status, manifest.reason, manifest.seconds)
