"""Which stages there are, and which of them have to be made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from harness.store.manifest import Manifest
from harness.store.stage import Stage
from harness.store.store import Store


def reachable(stages: Iterable[Stage]) -> dict[str, Stage]:
    """The stages and all that they build on, by key: inputs first, otherwise as given."""
    found: dict[str, Stage] = {}
    for stage in stages:
        for part in _inputs_first(stage, found):
            found[part.key] = part
    return found


def finished(stages: dict[str, Stage], store: Store) -> dict[str, Manifest]:
    """The manifests of those that have ended, well or durably badly."""
    manifests = {key: store.manifest(stage) for key, stage in stages.items()}
    return {key: manifest for key, manifest in manifests.items() if manifest is not None}


def outstanding(wanted: Iterable[Stage], ended: Iterable[str]) -> set[str]:
    """The keys that have to be made so that all wanted stages have ended.

    An input that is gone is only made again for a stage that has to be made itself: whoever
    throws away the weights of a finished comparison does not want them trained again.
    """
    ended, needed = set(ended), set()
    todo = list(wanted)
    while todo:
        stage = todo.pop()
        if stage.key not in ended and stage.key not in needed:
            needed.add(stage.key)
            todo += stage.inputs.values()
    return needed


def hopeless(stages: dict[str, Stage], ended: dict[str, Manifest]) -> set[str]:
    """The keys of stages that can never be made: something they build on ended durably badly.

    Args:
        stages: by key, inputs before what builds on them.
        ended: what `finished` found.
    """
    bad = {key for key, manifest in ended.items() if manifest.status != "done"}
    for key, stage in stages.items():
        needed = {n: s for n, s in stage.inputs.items() if n not in stage.tolerates}
        if any(source.key in bad for source in needed.values()):
            bad.add(key)
    return bad - ended.keys()


def _inputs_first(stage: Stage, found: dict[str, Stage]) -> Iterator[Stage]:
    if stage.key in found:
        return
    for part in stage.inputs.values():
        yield from _inputs_first(part, found)
    yield stage
