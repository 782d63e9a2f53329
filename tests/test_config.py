"""From files, flags and assignments to an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from harness.budget import PRESETS, Budget
from harness.config import (
    ENGINE_NAMES,
    Choice,
    Experiment,
    make_budget,
    make_experiment,
    read_assignment,
    read_choices,
    read_file,
    split_variant,
)
from harness.engine.engines import ENGINES
from harness.errors import RequestError

ROOT = Path(__file__).parents[1]


def make(**keys: Any) -> Experiment:
    given = {"methods": "dpo", **{k.replace("__", "."): v for k, v in keys.items()}}
    return make_experiment(given, known_tasks=["sentiment"], plugin_name=lambda name: name)


def test_an_assignment_is_a_toml_value_or_a_text() -> None:
    assert read_assignment("budget.pairs=2000") == ("budget.pairs", 2000)
    assert read_assignment("budget.learning_rate=3e-4") == ("budget.learning_rate", 3e-4)
    assert read_assignment("madpo.form=amplify") == ("madpo.form", "amplify")
    assert read_assignment("sentiment.data=a=b") == ("sentiment.data", "a=b")
    assert read_assignment("x=true") == ("x", True)


def test_choices_carry_settings() -> None:
    found = read_choices("dpo,dpo:beta=0.03, madpo:c_max=4:c_min=0.25", "methods")
    assert found == [
        Choice("dpo"), Choice("dpo", {"beta": 0.03}), Choice("madpo", {"c_max": 4, "c_min": 0.25})
    ]  # fmt: skip


def test_the_reference_method_joins_where_it_is_not_named() -> None:
    assert [c.name for c in make(methods="madpo,alphadpo").methods] == ["dpo", "madpo", "alphadpo"]
    assert [c.name for c in make(methods="madpo,dpo").methods] == ["madpo", "dpo"]
    assert make(methods="madpo", reference_method="simpo").methods[0].name == "simpo"


def test_all_tasks_that_exist_are_the_default() -> None:
    assert [c.name for c in make().tasks] == ["sentiment"]


def test_a_methods_table_reaches_all_its_rows_and_a_rows_own_setting_wins() -> None:
    found = make(methods="madpo,madpo:c_max=3", madpo__c_max=4.0, madpo__tau=7.0).methods
    assert found[1].settings == {"c_max": 4.0, "tau": 7.0}
    assert found[2].settings == {"c_max": 3, "tau": 7.0}


def test_a_variant_gets_its_tasks_table() -> None:
    (task,) = make(tasks="sentiment-low", sentiment__prompt_words=5).tasks
    assert task == Choice("sentiment-low", {"prompt_words": 5})


def test_a_table_of_something_that_does_not_run_is_an_error() -> None:
    with pytest.raises(RequestError, match=r"simpo\.beta"):
        make(simpo__beta=2.0)


def test_single_values_go_over_the_preset() -> None:
    name, budget = make_budget({"preset": "smoke", "pairs": 96, "lora.rank": 8})
    assert name == "smoke"
    assert (budget.pairs, budget.lora.rank) == (96, 8)
    assert budget.warm_start.texts == PRESETS["smoke"]["warm_start.texts"]


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_is_a_budget(preset: str) -> None:
    assert isinstance(make_budget({"preset": preset})[1], Budget)


def test_integers_are_welcome_where_numbers_are_wanted_and_not_the_other_way() -> None:
    assert make_budget({"clip": 1})[1].clip == 1.0
    with pytest.raises(RequestError, match="type int"):
        make_budget({"pairs": 10.5})
    with pytest.raises(RequestError, match="type int"):
        make_budget({"pairs": True})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"warmup": 1.0}, "below 1"),
        ({"beta2": 1.0}, "below 1"),
        ({"lora": 8}, "not a single value"),
        ({"lora.rank.deep": 8}, "not a single value"),
        ({"lora.ranks": 8}, "did you mean 'budget.lora.rank'"),
        ({"overlong": "keep"}, "cut"),
        ({"clip": float("nan")}, "type float"),
        ({"clip": -1.0}, "0 or more"),
    ],
)
def test_a_budget_out_of_its_range_is_refused(table: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        make_budget(table)


def test_what_may_be_zero_may_be_zero() -> None:
    budget = make_budget({"clip": 0.0, "warmup": 0.0, "warm_start.epochs": 0})[1]
    assert (budget.clip, budget.warmup, budget.warm_start.epochs) == (0.0, 0.0, 0)


def test_a_file_is_dotted_keys(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text('methods = ["dpo"]\n[budget]\npairs = 64\n[budget.lora]\nrank = 4\n')
    assert read_file(path) == {"methods": ["dpo"], "budget.pairs": 64, "budget.lora.rank": 4}


def test_a_file_that_is_not_toml_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "x.toml"
    path.write_text("methods = [\n'dpo'\nseeds = 3\n")
    with pytest.raises(RequestError, match=r"x\.toml is not TOML.*line"):
        read_file(path)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "experiments").glob("*.toml")), ids=lambda p: p.stem
)
def test_every_published_experiment_is_understood(path: Path) -> None:
    assert make_experiment(
        read_file(path), known_tasks=["sentiment"], plugin_name=lambda name: name
    ).methods


def test_a_run_has_as_many_processes_as_are_asked_for_and_no_more_than_pairs_in_a_step() -> None:
    assert make().processes == 1
    assert make(processes=32).processes == 32
    with pytest.raises(RequestError, match=r"'processes' = 33 is more than .*pairs_per_step = 32"):
        make(processes=33)
    for odd in (0, 1.5, "2"):
        with pytest.raises(RequestError, match="'processes' must be a whole number"):
            make(processes=odd)


def test_micro_batches_have_a_limit_of_tokens() -> None:
    assert make().budget.micro_tokens == 16384
    assert make(budget__micro_tokens=256).budget.micro_tokens == 256
    with pytest.raises(RequestError, match=r"budget\.micro_tokens' must be more than 0"):
        make(budget__micro_tokens=0)


def test_the_engines_that_can_be_named_are_the_engines_that_exist() -> None:
    assert set(ENGINE_NAMES) == set(ENGINES)


def test_a_variant_is_split_at_the_first_dash_and_a_path_is_not() -> None:
    assert split_variant("sentiment-low") == ("sentiment", "low")
    assert split_variant("sentiment") == ("sentiment", None)
    assert split_variant("./my-task.py") == ("./my-task.py", None)
