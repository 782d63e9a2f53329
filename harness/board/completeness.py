"""What keeps a row from being ranked: a rank is claimed only between equal and complete rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

import pandas as pd

from harness.board.candidates import Candidate, gathered, pick
from harness.board.text import shortened
from harness.scores import Run, Scores, TaskHeader

Spent: TypeAlias = tuple[tuple[int, int], ...]  # (pairs, steps) of the runs of a row, each once


def checked(scores: Scores, task: TaskHeader) -> tuple[Candidate, ...]:
    """All rows of a task, each with the reasons that keep it from being ranked.

    Raises:
        DataError: a value is there twice, or the primary metric is not one of the task.
    """
    found = gathered(scores, task)
    trained = [c for c in found if not c.base]
    seeds = sorted({r.seed for c in trained for r in c.runs} | set(_seeds(trained, task)))
    every = {
        m.name: sorted({str(p) for c in found for p in c.tables[m.name].columns})
        for m in task.metrics
    }
    found = [_aligned(c, every) for c in found]
    budgets = scores.header.budget.get("unit") != "flops"
    spent = _usual_budget(found, scores.header.reference_method) if budgets else None
    told = [replace(c, reasons=_reasons(c, task, _expected(c, seeds), spent)) for c in found]
    # Complete rows are compared on the prompts on which all of them have the primary metric.
    complete = [c.tables[task.primary] for c in told if not c.reasons]
    lost = {p for table in complete for p in table.columns[table.isna().any(axis=0)]}
    shared = {metric: [p for p in names if p not in lost] for metric, names in every.items()}
    return tuple(_aligned(c, shared) for c in told)


def _seeds(found: Sequence[Candidate], task: TaskHeader) -> list[int]:
    return [int(s) for c in found for s in c.tables[task.primary].index]


def _aligned(candidate: Candidate, prompts: Mapping[str, Sequence[str]]) -> Candidate:
    """The same row over the prompts of all rows, so that columns mean the same everywhere.

    Each metric has prompts of its own: lm-evaluation-harness asks others than the board's.
    """
    tables = {m: t.reindex(columns=list(prompts[m])) for m, t in candidate.tables.items()}
    return replace(candidate, tables=tables)


def _expected(candidate: Candidate, seeds: Sequence[int]) -> Sequence[int]:
    """Seeds that a row must have: an untrained policy has no training seed to vary."""
    own = [int(s) for t in candidate.tables.values() for s in t.index]
    return sorted(set(own)) if candidate.base and len(set(own)) == 1 else seeds


def _spent(candidate: Candidate) -> Spent:
    return tuple(sorted({(r.pairs, r.steps) for r in candidate.runs}))


def _usual_budget(found: Sequence[Candidate], reference: str) -> Spent | None:
    """Pairs and steps that a run may have had: the reference method's, else the commonest."""
    done = [c for c in found if c.runs and not c.base and all(r.status == "done" for r in c.runs)]
    own = pick(done, reference)
    if own:
        return _spent(own)
    common = Counter(map(_spent, done)).most_common()
    return min((s for s, n in common if n == common[0][1]), default=None)


def _reasons(
    candidate: Candidate, task: TaskHeader, seeds: Sequence[int], spent: Spent | None
) -> tuple[str, ...]:
    """Why a row is not ranked: runs that failed, values that are missing, another budget."""
    runs = {r.seed: r for r in candidate.runs}
    table = candidate.tables[task.primary]
    found = _together({s: _seed_reason(s, runs.get(s), table, task) for s in seeds})
    if not any(found) and table.shape[1] == 1:
        found.append("there is one prompt, and an interval takes at least two")
    if not any(found) and spent and candidate.runs and not candidate.base:
        found.append(_budget_reason(_spent(candidate), spent))
    return tuple(filter(None, found)) or (() if seeds else ("no scores",))


def _together(reasons: Mapping[int, str]) -> list[str]:
    """`seeds 0, 2: reason` for every reason once, in the order of the first seed."""
    seeds: dict[str, list[str]] = {}
    for seed, reason in reasons.items():
        if reason:
            seeds.setdefault(reason, []).append(str(seed))
    return [f"seed{'s' * (len(s) > 1)} {', '.join(s)} {reason}" for reason, s in seeds.items()]


def _seed_reason(seed: int, run: Run | None, table: pd.DataFrame, task: TaskHeader) -> str:
    if run and run.status != "done":
        return run.status + (f": {shortened(run.reason)}" if run.reason else "")
    if seed not in table.index:
        return "without scores" if run else "not run"
    missing = int(table.loc[[seed]].isna().to_numpy().sum())
    total = table.shape[1]
    lacks = missing > task.spare * total
    return f"without {task.primary} for {missing} of {total} prompts" if lacks else ""


def _budget_reason(own: Spent, usual: Spent) -> str:
    if own == usual:
        return ""
    return f"other budget: trained on {_in_words(own)}, where the other rows had {_in_words(usual)}"


def _in_words(spent: Spent) -> str:
    return " or ".join(f"{pairs:,} pairs in {steps:,} steps" for pairs, steps in spent)
