"""Sentences that the reader of a board must see, from the facts of finished stages."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from harness.judge.words import judging_words
from harness.pipeline.layout import Cell
from harness.pipeline.names import BASE
from harness.pipeline.plan import Plan
from harness.store.stage import Stage
from harness.store.store import Store

PARSES = 0.9
"""Share of well-formed samples below which a world's reference policy has not learnt its world."""


def notes(plan: Plan, store: Store) -> list[str]:
    """Sentences that the reader of a board must see: what the data were, and what is short."""
    found: list[str] = []
    for board in plan.boards:
        mine: list[str] = []
        cells = [c for c in plan.cells if c.board is board]
        own = [c.train for c in cells if c.train]
        inputs = {k: s for train in own for k, s in train.inputs.items()}
        wanted = partial(_data_notes, wanted=plan.experiment.budget.pairs)
        tokens = inputs.get("tokens")
        mine += _note(store, tokens and tokens.inputs["pairs"], _sample_notes)
        mine += _note(store, tokens, wanted)
        margins = inputs.get("margins")
        mine += _note(store, margins and margins.inputs["reward_model"], _reward_notes)
        mine += _note(store, inputs.get("engine"), _engine_notes)
        mine += _alone(own, store)
        mine += _sharing(own, store)
        mine += _still(cells, store)
        mine += _note(store, cells[0].score.inputs["completions"], _prompt_notes)
        choices = {t.inputs["choice"].key: t.inputs["choice"] for t in own if "choice" in t.inputs}
        for choice in choices.values():
            mine += [f"{choice.label}: {n}" for n in _note(store, choice, _choice_notes)]
        if 1.0 not in board.task.decoded:
            drawn = ", ".join(f"{t:g}" for t in board.task.decoded)
            mine.append(
                f"no KL: answers were drawn at temperature {drawn}, and the estimate needs those "
                "of temperature 1"
            )
        mine += judging(cells, store)
        found += [f"{board.name}: {note}" for note in mine]
    return found


def _note(
    store: Store, stage: Stage | None, words: Callable[[Mapping[str, Any]], list[str]]
) -> list[str]:
    """What the facts of a finished stage give to say; nothing where there is no such stage."""
    manifest = store.manifest(stage) if stage else None
    return words(manifest.facts) if manifest and manifest.status == "done" else []


def _prompt_notes(facts: Mapping[str, Any]) -> list[str]:
    cut = facts["prompts_cut"]
    return [f"{cut} test prompts were longer than the limit and lost their beginnings"] * bool(cut)


def _sharing(trained: Sequence[Stage], store: Store) -> list[str]:
    """What every method was billed for alone, and was made once for all of them."""
    found = [(stage, store.manifest(stage)) for stage in trained]
    bills = [(stage, m.facts["bill"]) for stage, m in found if m and m.status == "done"]
    billed = sum(bill["total"] for _, bill in bills)
    parts = {"reference": "reference", "reward": "margins", "mismatched": "mismatched"}
    shared = [
        (stage.inputs[made].key, bill[part])
        for stage, bill in bills for part, made in parts.items() if bill[part]
    ]  # fmt: skip
    saved = sum(cost for _, cost in shared) - sum(dict(shared).values())
    if not saved:
        return []
    return [
        f"sharing saved {saved:.1e} of {billed:.1e} FLOPs billed: reference log-probs, reward "
        "model and margins were made once"
    ]


def _still(cells: Sequence[Cell], store: Store) -> list[str]:
    """Rows that are named after a moving reference and had one that stood still."""
    still = {}
    for cell in cells:
        manifest = store.manifest(cell.train) if cell.train and cell.row else None
        if manifest and manifest.status == "done" and manifest.facts["reference_moves"] == 0:
            assert cell.row is not None
            still[f"{cell.row.method.name} {cell.row.label}".strip()] = manifest.facts["steps"]
    return [
        f"{row}: its reference never moved in {steps} steps, so that it is the same loss without "
        "the move" for row, steps in still.items()
    ]  # fmt: skip


def _engine_notes(facts: Mapping[str, Any]) -> list[str]:
    """Where the engine is not the one that was asked for: why, and what that costs."""
    choice = facts["choice"]
    if not choice["why"]:
        return []
    more = facts["padded_tokens"] if choice["trunk"] == "padded" else 1.0
    cost = f"; prompts are computed twice, {more:.2f} times the tokens" if more > 1 else ""
    return [facts["engine"] + cost]


def _alone(trained: Sequence[Stage], store: Store) -> list[str]:
    """Pairs that are longer than a micro-batch may be."""
    found = (store.manifest(stage) for stage in trained)
    told = (m.facts["alone"] for m in found if m and m.status == "done")
    return list(dict.fromkeys(sentence for sentence in told if sentence))


def _sample_notes(facts: Mapping[str, Any]) -> list[str]:
    share = facts.get("samples_that_parse", 1.0)
    if share >= PARSES:
        return []
    return [
        f"only {share:.0%} of the reference policy's samples are well-formed: with so short a warm "
        "start the figures show that the way works, and nothing else"
    ]


def _reward_notes(facts: Mapping[str, Any]) -> list[str]:
    held_out = facts["held_out"]
    return [
        f"reward model: {held_out['accuracy']:.1%} of {held_out['pairs']} held-out labels, "
        f"calibration error {held_out['calibration_error']:.3f}"
    ]


def _choice_notes(facts: Mapping[str, Any]) -> list[str]:
    chosen = {**facts["settings"], "learning_rate": facts["learning_rate"]}
    words = " ".join(f"{key}={value}" for key, value in chosen.items())
    edge = f"; at the edge of what was tried: {', '.join(facts['edges'])}" if facts["edges"] else ""
    lost = "".join(f", {facts[k]} {k}" for k in ("diverged", "unreliable") if facts[k])
    return [f"{words}, trial {facts['trial']} of {facts['of']}{lost}{edge}"]


def _data_notes(facts: Mapping[str, Any], wanted: int) -> list[str]:
    counts = facts["train"]
    lost = {k: n for k, n in counts.items() if k not in ("kept", "used") and n}
    words = ", ".join(f"{n} {k}" for k, n in lost.items())
    notes = [f"of the training pairs made: {words}"] if words else []
    if counts["used"] < wanted:
        notes.append(f"{counts['used']} pairs instead of {wanted} were to be had")
    return notes


def judging(cells: Sequence[Cell], store: Store) -> list[str]:
    """Who judged and what that took, and what to know of the length-controlled win rates."""
    facts: list[Mapping[str, Any]] = []
    warned: dict[str, list[str]] = {}
    for cell in cells:
        verdicts = cell.score.inputs.get("verdicts")
        judged = store.manifest(verdicts) if verdicts else None
        if judged and judged.status == "done":
            facts.append(judged.facts)
        scored = store.manifest(cell.score)
        if scored and scored.status == "done":
            name = f"{cell.row.method.name} {cell.row.label}".strip() if cell.row else BASE
            for warning in scored.facts.get("length_control", {}).get("warnings", ()):
                # The same sentence with other figures is said once.
                alike = re.sub(r"[-+]?\d[\d.,]*", "#", warning)
                warned.setdefault(alike, []).append(f"{name}, seed {cell.seed}: {warning}")
    return judging_words(facts) + [_first_of(said) for said in warned.values()]


def _first_of(said: Sequence[str]) -> str:
    more = len(said) - 1
    return said[0] + (f" Likewise in {more} other run{'s' * (more > 1)}." if more else "")
