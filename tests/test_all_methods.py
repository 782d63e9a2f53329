"""Every method there is, in the experiment that trains all of them."""

from __future__ import annotations

import json
import math
import tomllib
from pathlib import Path

import pytest

from harness.registry import found, load_method

from .command import harness

FILE = Path(__file__).parents[1] / "experiments" / "all-methods.toml"
BUILT_IN = sorted(name for name, plugin in found("methods").items() if plugin.origin == "built in")


def test_the_experiment_names_every_method_and_changes_no_formula() -> None:
    asked = tomllib.loads(FILE.read_text(encoding="utf-8"))
    assert asked["methods"] == BUILT_IN
    changed = {key: asked[key] for key in asked if key in BUILT_IN}
    # The one that is named after what only happens late in a long run.
    assert changed == {"tr_dpo": {"tau": 32}}
    assert load_method("tr_dpo").defaults["tau"] == 512


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_method_says_where_it_is_from_and_what_it_computes(name: str) -> None:
    method = load_method(name)
    assert "arXiv:" in method.source or " @" in method.source
    assert method.formula
    assert method.summary.endswith(".")
    numeric = {key for key, value in method.defaults.items() if type(value) in (int, float)}
    assert numeric <= set(method.bounds), "a number without bounds"
    assert set(method.grid) & numeric <= set(method.bounds)


@pytest.mark.slow
def test_all_of_them_train_and_none_diverges(tmp_path: Path) -> None:
    done = harness(tmp_path, "run", "--config", str(FILE), "--name", "all", "--quiet", timeout=3000)
    assert done.returncode == 0, done.stderr
    board = json.loads((tmp_path / "leaderboards" / "all" / "leaderboard.json").read_text())
    (task,) = board["tasks"]
    assert {row["method"] for row in task["rows"]} == {*BUILT_IN, "reference"}
    assert not any("never moved" in note for note in board["notes"])
    trained = {}
    for path in (tmp_path / "runs").rglob("manifest.json"):
        manifest = json.loads(path.read_text())
        if manifest["verb"] == "train":
            assert manifest["status"] == "done"
            trained[manifest["settings"]["method"]] = manifest["facts"]
    assert sorted(trained) == BUILT_IN
    for name, facts in trained.items():
        assert math.isfinite(facts["loss"]["last"]), name
        assert facts["validation"]["not_finite"] == 0, name
        assert facts["steps"] == 128, name
