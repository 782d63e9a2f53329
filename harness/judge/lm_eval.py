"""Tasks of lm-evaluation-harness on a cell's checkpoint: secondary figures, an optional extra."""

from __future__ import annotations

import importlib.util
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any, NamedTuple

from harness.contracts.task import Metric
from harness.errors import DataError, RequestError, unknown
from harness.store.stage import Work

BATCH = 8
"""Documents at once; a constant, since sums of floats depend on it."""

ROUNDING = 1e-9
_NO_FILTER = "none"


class Asked(NamedTuple):
    """Names of tasks, and a folder that holds tasks of one's own."""

    tasks: tuple[str, ...]
    folder: str | None = None


def read_tasks(text: str) -> Asked:
    """`arc_easy,./my_tasks,mine` as names, and the folder that holds YAML files of one's own.

    Raises:
        RequestError: no task is named, or two folders are.
    """
    items = [item.strip() for item in text.split(",") if item.strip()]
    folders = [item for item in items if Path(item).expanduser().is_dir()]
    names = tuple(dict.fromkeys(item for item in items if item not in folders))
    if len(folders) > 1:
        raise RequestError(f"--also-lm-eval takes one folder of tasks, not {', '.join(folders)}")
    if not names:
        raise RequestError(f"--also-lm-eval {text!r} names no task, such as arc_easy")
    return Asked(names, str(Path(folders[0]).expanduser().resolve()) if folders else None)


def check_lm_eval(asked: Asked) -> None:
    """Make sure, before anything is made, that the tasks can be run.

    Raises:
        RequestError: the package is not installed, or it knows no task of that name.
    """
    if importlib.util.find_spec("lm_eval") is None:
        raise RequestError(
            "--also-lm-eval needs lm-evaluation-harness, which is not installed: "
            "pip install 'preference-harness[lm-eval]'"
        )
    known = _manager(asked.folder)
    for name in asked.tasks:
        if not known.match_tasks([name]):
            raise unknown("task of lm-evaluation-harness", name, known.all_tasks)


def evaluate(work: Work) -> Mapping[str, Any]:
    """Stage: the value of each document under each metric that is a mean over documents.

    Others (a perplexity, a correlation) have no value per document; like all that
    lm-evaluation-harness reports they are in the facts.

    Settings: `tasks`, `folder` (or None), `limit` of documents of each task (or None).
    Inputs: `policy`, and `trained` where it is not the policy itself that is evaluated.

    Raises:
        DataError: lm-evaluation-harness reports nothing.
    """
    import lm_eval
    import pyarrow as pa
    import pyarrow.parquet as pq

    s = work.settings
    with _silence():
        found = lm_eval.simple_evaluate(
            model="hf", model_args=_model(work.inputs["policy"], work.inputs.get("trained")),
            tasks=list(s["tasks"]), task_manager=_manager(s["folder"]), limit=s["limit"],
            batch_size=BATCH, device=_device(), bootstrap_iters=0,
        )  # fmt: skip
    if not found or not found.get("results"):
        raise DataError(f"lm-evaluation-harness reports nothing for {', '.join(s['tasks'])}")
    rows = list(_rows(found["samples"], found["results"]))
    schema = pa.schema(
        [("prompt_id", pa.string()), ("metric", pa.string()), ("value", pa.float64())]
    )
    columns = dict(zip(schema.names, zip(*rows, strict=True), strict=True)) if rows else {}
    table = pa.table({name: list(columns.get(name, ())) for name in schema.names}, schema=schema)
    pq.write_table(table, work.out / "scores.parquet")
    return {
        "version": lm_eval.__version__,
        "metrics": _better({metric for _, metric, _ in rows}, found["higher_is_better"]),
        "reported": _numbers(found["results"]),
        "documents": {task: n["effective"] for task, n in found["n-samples"].items()},
    }


def metrics(facts: Mapping[str, Any]) -> tuple[Metric, ...]:
    """What the stage's scores mean, from its facts."""
    return tuple(
        Metric(
            name, "score", None if higher is None else "higher" if higher else "lower",
            f"'{name}' of lm-evaluation-harness {facts['version']}",
        )
        for name, higher in facts["metrics"].items()
    )  # fmt: skip


@contextmanager
def _silence() -> Iterator[None]:
    """Its progress bars, log lines and what it asks git for belong on no board's standard error.

    At the file descriptor too, since git is another process; errors are raised, not printed.
    """
    kept = os.dup(2)
    try:
        with open(os.devnull, "w", encoding="utf-8") as nowhere, redirect_stderr(nowhere):
            os.dup2(nowhere.fileno(), 2)
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _manager(folder: str | None) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=folder)


def _model(policy: Path, trained: Path | None) -> dict[str, str]:
    """Where the weights lie: a whole model, or an adapter on the policy."""
    if trained is None:
        return {"pretrained": str(policy), "dtype": "float32"}
    if (trained / "adapter_config.json").exists():
        return {"pretrained": str(policy), "peft": str(trained), "dtype": "float32"}
    return {"pretrained": str(trained), "dtype": "float32"}


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _rows(
    samples: Mapping[str, Sequence[Mapping[str, Any]]], results: Mapping[str, Mapping[str, Any]]
) -> Iterator[tuple[str, str, float]]:
    for task, documents in samples.items():
        values: dict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
        for document in documents:
            for metric in document["metrics"]:
                key = metric, document["filter"]
                values[key][f"{task}/{document['doc_id']}"] = document[metric]
        for (metric, by), each in values.items():
            reported = results[task].get(f"{metric},{by}")
            if _is_mean(list(each.values()), reported):
                name = f"{task}/{metric}" + (f"/{by}" if by != _NO_FILTER else "")
                yield from ((place, name, float(value)) for place, value in each.items())


def _is_mean(values: Sequence[Any], reported: Any) -> bool:
    """Whether what is reported for all documents is the mean of what each of them got."""
    if not isinstance(reported, int | float) or not all(
        isinstance(value, int | float) and math.isfinite(value) for value in values
    ):
        return False
    mean = math.fsum(values) / len(values)
    return math.isclose(mean, reported, rel_tol=ROUNDING, abs_tol=ROUNDING)


def _better(
    names: set[str], higher: Mapping[str, Mapping[str, bool | None]]
) -> dict[str, bool | None]:
    return {name: higher[(parts := name.split("/"))[0]].get(parts[1]) for name in sorted(names)}


def _numbers(results: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """What is reported, without what is no finite number: names, and errors that were left out."""
    return {
        task: {
            name: float(value)
            for name, value in figures.items()
            if isinstance(value, int | float) and math.isfinite(value)
        }
        for task, figures in results.items()
    }
