"""lm-evaluation-harness on a checkpoint: for real where it is installed, refused elsewhere."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from harness.errors import RequestError
from harness.judge.lm_eval import check_lm_eval, evaluate, metrics, read_tasks
from harness.store.stage import Work

INSTALLED = importlib.util.find_spec("lm_eval") is not None
needs_lm_eval = pytest.mark.skipif(not INSTALLED, reason="lm-eval is not installed")
# What it and its libraries say of each other's versions is not ours to mend.
their_warnings = pytest.mark.filterwarnings("ignore")

CHOICE = """\
task: story_choice
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{answers}}}}"
doc_to_target: right
target_delimiter: ""
metric_list:
  - metric: acc
    aggregation: mean
    higher_is_better: true
"""
PERPLEXITY = """\
task: story_perplexity
dataset_path: json
dataset_kwargs:
  data_files: {{test: {data}}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{{{text}}}}"
metric_list:
  - metric: word_perplexity
    aggregation: weighted_perplexity
    higher_is_better: false
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two tasks on five documents: the right answer is words, and twice it is none."""
    place = tmp_path / "tasks"
    place.mkdir()
    data = place / "data.jsonl"
    with data.open("w") as file:
        for i, who in enumerate(("dog", "cat", "girl", "boy", "bird")):
            row = {
                "question": f"Once upon a time there was a {who}. The {who}",
                "answers": [" was very happy", " xqz vbw kjj"], "right": int(i in (1, 4)),
                "text": f"Once upon a time there was a {who}.",
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")
    (place / "choice.yaml").write_text(CHOICE.format(data=data))
    (place / "perplexity.yaml").write_text(PERPLEXITY.format(data=data))
    return place


def work(folder: Path, out: Path, *, limit: int | None = None, **inputs: Path) -> Work:
    out.mkdir()
    settings = {
        "tasks": ["story_choice", "story_perplexity"], "folder": str(folder), "limit": limit,
    }  # fmt: skip
    return Work(settings, inputs, out, out, lambda *_: None)


def scores(out: Path) -> dict[tuple[str, str], float]:
    rows = pq.read_table(out / "scores.parquet").to_pylist()
    return {(row["metric"], row["prompt_id"]): row["value"] for row in rows}


def test_tasks_are_names_and_at_most_one_folder(tmp_path: Path) -> None:
    asked = read_tasks(f"arc_easy, {tmp_path} ,mine,arc_easy")
    assert asked.tasks == ("arc_easy", "mine")
    assert asked.folder == str(tmp_path.resolve())
    assert read_tasks("mine").folder is None
    with pytest.raises(RequestError, match="names no task"):
        read_tasks(f"{tmp_path},")
    (tmp_path / "a").mkdir()
    with pytest.raises(RequestError, match="one folder"):
        read_tasks(f"{tmp_path},{tmp_path / 'a'},mine")


@pytest.mark.skipif(INSTALLED, reason="lm-eval is installed")
def test_without_the_package_nothing_is_begun() -> None:
    with pytest.raises(RequestError, match=r"pip install 'preference-harness\[lm-eval\]'"):
        check_lm_eval(read_tasks("arc_easy"))


@needs_lm_eval
def test_an_unknown_task_is_named_with_the_nearest(folder: Path) -> None:
    check_lm_eval(read_tasks(f"{folder},story_choice"))
    with pytest.raises(RequestError, match="did you mean 'story_choice'"):
        check_lm_eval(read_tasks(f"{folder},story_choise"))


@needs_lm_eval
@their_warnings
def test_each_document_has_a_value_where_the_metric_is_a_mean(
    folder: Path, shared: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    model = shared / "models" / "stories260k-llama"
    facts = evaluate(work(folder, tmp_path / "out", policy=model))
    found = scores(tmp_path / "out")
    assert {metric for metric, _ in found} == {"story_choice/acc"}
    assert [found["story_choice/acc", f"story_choice/{i}"] for i in range(5)] == [1, 0, 1, 1, 0]
    assert facts["reported"]["story_choice"]["acc,none"] == 0.6
    assert 1 < facts["reported"]["story_perplexity"]["word_perplexity,none"] < 1000
    assert facts["documents"] == {"story_choice": 5, "story_perplexity": 5}
    (metric,) = metrics(facts)
    assert (metric.name, metric.better) == ("story_choice/acc", "higher")
    assert capfd.readouterr().err == ""
    json.dumps(facts, allow_nan=False)  # a manifest takes no NaN


@needs_lm_eval
@their_warnings
def test_an_adapter_and_a_whole_model_are_what_is_evaluated(
    folder: Path, shared: Path, tmp_path: Path
) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy = shared / "models" / "stories260k-llama"
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(policy)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"]))
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.5)
    adapted.save_pretrained(tmp_path / "adapter")
    adapted.merge_and_unload().save_pretrained(tmp_path / "merged")
    AutoTokenizer.from_pretrained(policy).save_pretrained(tmp_path / "merged")
    perplexity = {
        name: evaluate(work(folder, tmp_path / f"out-{name}", limit=2, policy=policy, **inputs))[
            "reported"
        ]["story_perplexity"]["word_perplexity,none"]
        for name, inputs in {
            "policy": {}, "adapter": {"trained": tmp_path / "adapter"},
            "merged": {"trained": tmp_path / "merged"},
        }.items()
    }  # fmt: skip
    assert math.isclose(perplexity["adapter"], perplexity["merged"], rel_tol=1e-4)
    assert not math.isclose(perplexity["adapter"], perplexity["policy"], rel_tol=1e-2)
