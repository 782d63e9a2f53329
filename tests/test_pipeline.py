"""What an experiment makes, what is shared, and what every key depends on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness.config import make_experiment
from harness.errors import RequestError
from harness.pipeline.plan import Plan, plan
from harness.store.stage import Stage

from .command import PLANTED


def lay_out(methods: str = "dpo", tasks: str = "sentiment-high", **keys: Any) -> Plan:
    given = {"methods": methods, "tasks": tasks, "seeds": 2, "budget.preset": "smoke"}
    given |= {key.replace("__", "."): value for key, value in keys.items()}
    return plan(
        make_experiment(given, known_tasks=["sentiment"], plugin_name=lambda n: Path(n).stem)
    )


def keys(laid_out: Plan, *verbs: str) -> set[str]:
    return {s.key for s in laid_out.stages if not verbs or s.verb in verbs}


def count(laid_out: Plan, verb: str) -> int:
    return sum(stage.verb == verb for stage in laid_out.stages)


def test_everything_but_training_is_made_once() -> None:
    laid_out = lay_out("dpo,madpo,alphadpo,simpo", "sentiment", seeds=3)
    once = {v: count(laid_out, v) for v in ("corpus", "policy", "sample")}
    per_tier = {v: count(laid_out, v) for v in ("pairs", "tokens", "reference", "margins")}
    assert set(once.values()) == {1}
    assert set(per_tier.values()) == {3}
    assert count(laid_out, "train") == 4 * 3 * 3
    # The reference policy is the same for all tiers, and so are its test completions.
    assert count(laid_out, "generate") == 4 * 3 * 3 + 3


def test_a_further_method_changes_no_key_that_is_there() -> None:
    assert keys(lay_out("dpo,madpo")) <= keys(lay_out("dpo,madpo,alphadpo"))


def test_a_further_seed_changes_no_key_that_is_there() -> None:
    assert keys(lay_out(seeds=2)) < keys(lay_out(seeds=3))


def test_a_stage_comes_after_all_that_it_reads() -> None:
    seen: set[str] = set()
    for stage in lay_out("dpo,madpo", "sentiment").stages:
        assert {source.key for source in stage.inputs.values()} <= seen
        seen.add(stage.key)


@pytest.mark.parametrize(
    ("key", "value", "first"),
    [
        ("budget.learning_rate", 1e-5, "train"),
        ("budget.epsilon", 1e-6, "train"),
        ("budget.clip", 5.0, "train"),
        ("budget.micro_pairs", 16, "policy"),
        ("budget.lora.rank", 4, "train"),
        ("dpo.beta", 0.2, "train"),
        ("budget.precision", "bf16", "policy"),
        ("engine", "oracle", "policy"),
        ("tuning", "on", "engine"),
        ("budget.max_response_tokens", 40, "sample"),
        ("budget.overlong", "drop", "pairs"),
        ("budget.warm_start.epochs", 2, "policy"),
        ("budget.samples", 3, "generate"),
        ("budget.test_prompts", 25, "corpus"),
        ("budget.reward_model.epochs", 2, "reward-model"),
        ("sentiment.label_noise", 0.5, "corpus"),
        ("data_seed", 1, "corpus"),
    ],
)
def test_every_setting_is_in_the_keys_of_what_it_moves(key: str, value: Any, first: str) -> None:
    before = lay_out("dpo,madpo")
    after = lay_out("dpo,madpo", **{key.replace(".", "__"): value})
    changed = {a.verb for a, b in zip(before.stages, after.stages, strict=True) if a.key != b.key}
    assert {first, "score"} <= changed
    above = {s.verb for stage in before.stages if stage.verb == first for s in _all(stage)[1:]}
    assert not changed & above - {first}


def test_seeds_differ_in_training_and_generation_and_in_nothing_else() -> None:
    laid_out = lay_out(seeds=2)
    one, two = (c.score.inputs["completions"] for c in laid_out.cells if c.row)
    assert one.settings["seed"] != two.settings["seed"]
    assert one.inputs["trained"].settings["seed"] != two.inputs["trained"].settings["seed"]
    assert one.inputs["policy"].key == two.inputs["policy"].key
    assert one.inputs["trained"].inputs["tokens"].key == two.inputs["trained"].inputs["tokens"].key


def test_all_methods_of_a_seed_draw_with_the_same_numbers() -> None:
    laid_out = lay_out("dpo,simpo", seeds=2)
    seeds = {(c.seed, c.score.inputs["completions"].settings["seed"]) for c in laid_out.cells}
    assert len(seeds) == 2


def test_every_cell_has_the_same_budget() -> None:
    laid_out = lay_out("dpo,madpo,alphadpo,simpo")
    own = {"method", "method_settings", "seed", "reward_epochs"}
    budgets = [
        {k: v for k, v in stage.settings.items() if k not in own}
        for stage in laid_out.stages
        if stage.verb == "train"
    ]
    assert all(budget == budgets[0] for budget in budgets)


def test_test_prompts_are_read_by_no_stage_before_generation() -> None:
    for stage in lay_out("dpo,madpo").stages:
        if stage.verb == "sample":
            assert stage.settings["splits"] == ["train", "validation"]
        if stage.verb == "generate":
            assert stage.settings["splits"] == ["test"]


def test_an_edited_plugin_changes_the_keys_of_its_own_work_only(tmp_path: Path) -> None:
    path = tmp_path / "useless.py"
    text = (PLANTED / "useless.py").read_text()
    path.write_text(text)
    before = lay_out(f"dpo,{path}")
    assert keys(before)
    path.write_text(text.replace("0.0 *", "0.00001 *"))
    _forget()
    after = lay_out(f"dpo,{path}")
    changed = [a for a, b in zip(before.stages, after.stages, strict=True) if a.key != b.key]
    assert {stage.verb for stage in changed} == {"train", "generate", "score"}
    assert all("useless" in stage.label for stage in changed)


def _forget() -> None:
    """Plug-ins and code versions are read once per process; a new command is a new process."""
    from harness.store import code_version

    for name in vars(code_version).values():
        if hasattr(name, "cache_clear"):
            name.cache_clear()


def test_a_comment_in_a_plugin_changes_no_key(tmp_path: Path) -> None:
    path = tmp_path / "useless.py"
    text = (PLANTED / "useless.py").read_text()
    path.write_text(text)
    before = keys(lay_out(f"dpo,{path}"))
    path.write_text(text + "\n# a remark\n")
    _forget()
    assert keys(lay_out(f"dpo,{path}")) == before


def test_the_same_method_twice_with_the_same_settings_is_refused() -> None:
    with pytest.raises(RequestError, match="twice"):
        lay_out("dpo,dpo:beta=0.1")
    assert len(lay_out("dpo,dpo:beta=0.2").rows) == 2


def test_a_board_twice_is_refused() -> None:
    with pytest.raises(RequestError, match="sentiment-high"):
        lay_out(tasks="sentiment,sentiment-high")


def test_no_kl_is_estimated_from_tempered_samples() -> None:
    (stage,) = {
        s.key: s for s in lay_out(seeds=1, sentiment__temperature=0.7).stages
        if s.verb == "generate" and "trained" in s.inputs
    }.values()  # fmt: skip
    assert stage.settings["logprobs"] is False
    assert stage.settings["decoding"]["temperatures"] == [0.7]


def test_labels_name_method_seed_and_board() -> None:
    labels = [s.label for s in lay_out("dpo,dpo:beta=0.2").stages if s.verb == "train"]
    assert "train dpo beta=0.2, seed 1, sentiment-high" in labels


def test_keys_do_not_depend_on_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = keys(lay_out("dpo,madpo"))
    monkeypatch.chdir(tmp_path)
    assert keys(lay_out("dpo,madpo")) == before


def _all(stage: Stage) -> list[Stage]:
    return [stage, *(s for source in stage.inputs.values() for s in _all(source))]


def test_the_reward_model_sees_no_validation_pair_and_no_test_prompt() -> None:
    laid_out = lay_out("madpo")
    (reward_model,) = {s.key: s for s in laid_out.stages if s.verb == "reward-model"}.values()
    assert {s.verb for s in _all(reward_model)} == {
        "reward-model", "engine", "tokens", "pairs", "sample", "policy", "corpus"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("reference", "whole", "moving", "reads"),
    [
        ("dpo", False, False, ["policy", "reference"]),
        ("alphadpo", True, False, ["policy", "reference", "state"]),
        ("tr_dpo", False, True, ["policy", "reference"]),
        ("kto", True, False, ["policy", "reference", "mismatched"]),
    ],
)
def test_an_equal_bill_is_that_of_all_that_the_reference_method_costs(
    reference: str, whole: bool, moving: bool, reads: list[str]
) -> None:
    laid_out = lay_out(f"simpo,{reference}", budget__unit="flops", reference_method=reference)
    equal = {json.dumps(s.settings["equal_to"]) for s in laid_out.stages if s.verb == "train"}
    assert [json.loads(each) for each in equal] == [
        {"reads": reads, "whole_step": whole, "reward_epochs": 1, "moving_reference": moving}
    ]


def test_what_settings_do_not_need_is_not_made() -> None:
    assert count(lay_out("adadpo"), "reference") == 1
    assert count(lay_out("adadpo:form=simpo", reference_method="adadpo"), "reference") == 0
    assert count(lay_out("tr_dpo", reference_method="tr_dpo"), "reference") == 0
    assert count(lay_out("dpo,kto"), "mismatched") == 1
    assert count(lay_out("dpo,mallowspo"), "reference") == 2, "one of them with entropies"
    train = [s for s in lay_out("adadpo:form=simpo", reference_method="adadpo").stages
             if s.verb == "train"]  # fmt: skip
    assert all(set(stage.inputs) == {"tokens", "policy", "engine"} for stage in train)
