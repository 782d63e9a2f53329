"""The AlpacaEval-style task: its world's pairs and judge, and real pairs and instructions."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harness.contracts.judge import Versus
from harness.contracts.task import LC_WIN_RATE, Answers, Corpus, Sizes, Task
from harness.errors import DataError, RequestError
from harness.records import Completion, Pair, Prompt
from harness.registry import load_task

SIZES = Sizes(texts=300, train=400, validation=40, test=30)
ALL = Sizes(texts=100, train=100, validation=20, test=100)
RIGHT, WRONG = " cold plum .", " hot plum ."
WORDY = " sure . you said hot plum . hot plum . an opposite means the contrary . have a nice day ."


def build(**settings: Any) -> Task:
    return load_task("alpacaeval").build(**settings)


@pytest.fixture(scope="module")
def task() -> Task:
    return build()


@pytest.fixture(scope="module")
def corpus(task: Task) -> Corpus:
    return task.corpus(SIZES, np.random.default_rng(0))


def completion(prompt: Prompt, sample: int, text: str) -> Completion:
    return Completion(prompt.prompt_id, sample, prompt.text, text, (1, 2), (3, sample), True)


def plum(split: str, count: int) -> list[Prompt]:
    text = "give the opposite of : hot plum . answer :"
    return [Prompt(f"{split}-{i}", split, text, RIGHT) for i in range(count)]  # type: ignore[arg-type]


def pairs(task: Task, one: str, other: str, count: int = 2000) -> list[Pair]:
    prompts = plum("train", count)
    answers = {p.prompt_id: Answers([completion(p, 0, one), completion(p, 1, other)], None)
               for p in prompts}  # fmt: skip
    return task.pairs("", prompts, answers, np.random.default_rng(0))


def test_prompts_are_disjoint_and_as_many_as_were_asked_for(corpus: Corpus) -> None:
    assert len({p.text for p in corpus.prompts}) == len(corpus.prompts)
    assert len({p.prompt_id for p in corpus.prompts}) == len(corpus.prompts)
    counts = {s: sum(p.split == s for p in corpus.prompts) for s in ("train", "validation", "test")}
    assert counts == {"train": 400, "validation": 40, "test": 30}


def test_no_instruction_of_the_test_set_is_learnt_from(task: Task) -> None:
    corpus = task.corpus(Sizes(8000, 100, 20, 1000), np.random.default_rng(0))
    tested = {p.text for p in corpus.prompts if p.split == "test"}
    learnt = {text.partition(" answer :")[0] + " answer :" for text in corpus.texts}
    assert len(corpus.texts) == 8000
    assert len(tested) == 1000
    assert not tested & learnt


def test_every_text_and_every_baseline_answer_is_well_formed(task: Task, corpus: Corpus) -> None:
    assert task.parses is not None
    assert all(task.parses(text) for text in corpus.texts)
    assert all(task.parses(p.text + p.original) for p in corpus.prompts)


def test_the_baseline_is_right_as_often_as_the_task_says(task: Task) -> None:
    prompts = task.corpus(Sizes(1, 1500, 1, 1), np.random.default_rng(0)).prompts
    scored = task.score([completion(p, 0, p.original) for p in prompts])
    assert abs(np.mean([row["correct"] for row in scored]) - 0.6) < 0.05


def test_the_corpus_is_a_function_of_its_seed(task: Task) -> None:
    one, same, other = (task.corpus(SIZES, np.random.default_rng(s)) for s in (1, 1, 2))
    assert one == same
    assert one.texts != other.texts


def test_more_prompts_than_the_world_has_are_an_error_that_names_the_budget(task: Task) -> None:
    with pytest.raises(DataError, match=r"budget\.pairs"):
        task.corpus(Sizes(1, 50, 1, 1), Stuck(0))  # type: ignore[arg-type]


class Stuck(np.random.Generator):
    """Draws what it drew first, again and again."""

    def __init__(self, seed: int) -> None:
        super().__init__(np.random.PCG64(seed))

    def integers(self, *_: Any, **__: Any) -> int:  # type: ignore[override]
        return 0

    def permutation(self, x: Any, *_: Any) -> Any:  # type: ignore[override]
        return np.arange(x)


def test_pairs_are_two_samples_with_the_ids_that_were_sampled(task: Task) -> None:
    for pair in pairs(task, RIGHT, WRONG, 50):
        assert {pair.chosen, pair.rejected} == {RIGHT, WRONG}
        assert {pair.chosen_ids, pair.rejected_ids} == {(3, 0), (3, 1)}
        assert pair.prompt_ids == (1, 2)
        assert (pair.chosen_reward, pair.rejected_reward) == (
            (1, 0) if pair.chosen == RIGHT else (0, 1)
        )


@pytest.mark.parametrize(
    "settings",
    [{}, {"length_bias": 0.0}, {"length_bias": 4.0}, {"quality": 1.0}, {"label_noise": 2.0}],
)
def test_labels_are_drawn_as_the_biased_judge_judges(settings: dict[str, float]) -> None:
    task = build(**settings)
    assert task.contest is not None
    assert task.contest.rule is not None
    said = task.contest.rule([Versus(plum("train", 1)[0].text, RIGHT, WORDY)])[0].preference
    assert said is not None
    noise = settings.get("label_noise", 1.0)
    expected = 1 / (1 + np.exp(-np.log(said / (1 - said)) / noise))
    found = pairs(task, RIGHT, WORDY)
    share = np.mean([pair.chosen == RIGHT for pair in found])
    assert abs(share - expected) < 4 * np.sqrt(0.25 / len(found))


def test_without_noise_the_judge_always_has_its_way() -> None:
    assert {p.chosen for p in pairs(build(label_noise=0.0), RIGHT, WORDY, 50)} == {RIGHT}
    fond = build(label_noise=0.0, length_bias=9.0)
    assert {p.chosen for p in pairs(fond, RIGHT, WORDY, 50)} == {WORDY}


def test_the_score_is_the_truth_and_no_matter_of_length(task: Task) -> None:
    [prompt] = plum("test", 1)
    scored = task.score([completion(prompt, i, t) for i, t in enumerate((RIGHT, WRONG, WORDY))])
    assert scored == [{"correct": 1.0}, {"correct": 0.0}, {"correct": 0.0}]


def test_the_board_ranks_by_the_length_controlled_win_rate(task: Task, tmp_path: Path) -> None:
    assert task.primary == LC_WIN_RATE
    assert real(tmp_path).primary == LC_WIN_RATE
    assert real(tmp_path).contest is not None
    assert real(tmp_path).contest.rule is None  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"label_noise": -1.0}, "label_noise"),
        ({"quality": -1.0}, "quality"),
        ({"quality": 20.0, "length_bias": -11.0}, "at most 30 logits"),
        ({"data": "x"}, "eval"),
        ({"eval": "x"}, "data"),
        ({"baseline": "x"}, "baseline"),
        ({"generator": "x"}, "generator"),
        ({"data_split": "x"}, "data_split"),
        ({"eval_split": "x"}, "eval_split"),
        ({"template": "{instruction}"}, "template"),
        ({"data": "x", "eval": "x", "length_bias": 0.0}, "length_bias"),
        ({"data": "x", "eval": "x", "quality": 1.0}, "quality"),
        ({"data": "x", "eval": "x", "label_noise": 0.0}, "label_noise"),
        ({"data": "x", "eval": "x", "template": "no slot"}, "template"),
        ({"data": "x", "eval": "x", "template": "{instruction} {instruction}"}, "template"),
    ],
)
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(RequestError, match=named):
        build(**settings)


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    if path.name.endswith(".json"):
        path.write_text(json.dumps(rows))
        return str(path)
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return str(path)


def labelled(i: int, **more: Any) -> dict[str, Any]:
    return {"prompt": f"question {i}", "chosen": f"good {i}", "rejected": f"bad {i}", **more}


def asked(i: int, **more: Any) -> dict[str, Any]:
    row = {"instruction": f"task {i}", "output": f"answer {i}", "generator": "model"}
    return {**row, **more}


def real(
    folder: Path,
    rows: list[dict[str, Any]] | None = None,
    instructions: list[dict[str, Any]] | None = None,
    **settings: Any,
) -> Task:
    data = write(folder / "train.jsonl.gz", rows or [labelled(i) for i in range(40)])
    questions = write(folder / "set.json", instructions or [asked(i) for i in range(10)])
    return build(data=data, eval=questions, **settings)


def drawn(task: Task, sizes: Sizes = Sizes(100, 20, 4, 8)) -> Corpus:  # noqa: B008 (frozen)
    return task.corpus(sizes, np.random.default_rng(0))


def by_split(corpus: Corpus) -> Mapping[str, list[Prompt]]:
    splits = ("train", "validation", "test")
    return {split: [p for p in corpus.prompts if p.split == split] for split in splits}


def test_real_prompts_come_from_their_own_files_in_one_template(tmp_path: Path) -> None:
    found = by_split(drawn(real(tmp_path)))
    assert {split: len(some) for split, some in found.items()} == {
        "train": 20, "validation": 4, "test": 8,
    }  # fmt: skip
    for prompt in found["train"] + found["validation"]:
        i = prompt.text.split()[3]
        assert prompt.text == f"### Instruction:\nquestion {i}\n\n### Response:\n"
        assert prompt.original == f"good {i}"
    for prompt in found["test"]:
        i = prompt.text.split()[3]
        assert prompt.text == f"### Instruction:\ntask {i}\n\n### Response:\n"
        assert prompt.original == f"answer {i}"


def test_texts_are_chosen_answers_of_all_but_validation_prompts(tmp_path: Path) -> None:
    corpus = drawn(real(tmp_path, template="Q: {instruction} A: "))
    held = {p.text + p.original for p in by_split(corpus)["validation"]}
    every = {f"Q: question {i} A: good {i}" for i in range(40)}
    assert held < every
    assert set(corpus.texts) == every - held


def test_an_instruction_with_braces_is_left_as_it_is(tmp_path: Path) -> None:
    rows = [labelled(i, prompt=f"{{instruction}} {{0}} {i}") for i in range(9)]
    for prompt in by_split(drawn(real(tmp_path, rows, template="<{instruction}>")))["train"]:
        assert prompt.text.startswith("<{instruction} {0} ")


def test_people_s_pairs_are_texts_as_they_were_labelled(tmp_path: Path) -> None:
    task = real(tmp_path)
    prompts = [p for p in drawn(task).prompts if p.split != "test"]
    found = task.pairs("", prompts, {}, np.random.default_rng(0))
    assert {pair.pair_id for pair in found} == {p.prompt_id for p in prompts}
    for pair in found:
        i = pair.prompt.split()[3]
        assert (pair.chosen, pair.rejected) == (f"good {i}", f"bad {i}")
        assert pair.chosen_ids is None
        assert pair.prompt_ids is None


def test_pairs_of_test_instructions_are_held_out_and_every_loss_is_counted(tmp_path: Path) -> None:
    odd = [
        labelled(1, prompt="task 3"),
        labelled(2, prompt=" task  4 "),
        labelled(0),
        labelled(50, chosen="same", rejected="same"),
        labelled(51, chosen=" "),
        labelled(52, rejected=None),
        labelled(53, prompt=""),
    ]
    corpus = drawn(real(tmp_path, [*(labelled(i) for i in range(12)), *odd]))
    assert corpus.facts["pairs"]["kept"] == 12
    assert corpus.facts["pairs"]["dropped"] == {
        "several turns": 0, "without two different answers": 3, "held out": 2, "duplicate": 1,
        "empty": 1,
    }  # fmt: skip
    assert not any("task" in text for text in corpus.texts)


def test_fewer_pairs_than_asked_for_shrink_both_splits_alike(tmp_path: Path) -> None:
    corpus = drawn(real(tmp_path), Sizes(1000, 300, 100, 1000))
    counts = {split: len(some) for split, some in by_split(corpus).items()}
    assert counts == {"train": 30, "validation": 10, "test": 10}


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_lists_of_messages_are_read_and_longer_talks_are_counted(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": f"question {i}",
            "chosen": [said("user", f"question {i}"), said("assistant", f"good {i}")],
            "rejected": [said("user", f"question {i}"), said("assistant", f"bad {i}")],
        }
        for i in range(10)
    ]
    talk = [said("user", "question 9"), said("assistant", "what ?"), said("user", "question 9")]
    rows[9]["chosen"] = [*talk, said("assistant", "good 9")]
    rows[8]["rejected"] = [said("user", "question 8")]
    task = real(tmp_path, rows)
    corpus = drawn(task)
    assert corpus.facts["pairs"]["dropped"]["several turns"] == 2
    assert corpus.facts["pairs"]["kept"] == 8
    prompts = [p for p in corpus.prompts if p.split != "test"]
    found = task.pairs("", prompts, {}, np.random.default_rng(0))
    assert {pair.rejected for pair in found} == {f"bad {i}" for i in range(8)}


def test_an_answer_that_is_neither_text_nor_messages_is_named(tmp_path: Path) -> None:
    rows = [labelled(i, chosen=[{"text": "?"}]) for i in range(3)]
    with pytest.raises(DataError, match=r"train\.jsonl\.gz, row 1: 'chosen' is neither"):
        drawn(real(tmp_path, rows))


def test_reference_outputs_by_generator_need_the_name_of_one(tmp_path: Path) -> None:
    rows = [
        {"instruction": f"task {i}", "reference_outputs": {"one": f"a {i}", "other": f"b {i}"}}
        for i in range(5)
    ]
    with pytest.raises(DataError, match=r"one, other.*alpacaeval\.generator"):
        drawn(real(tmp_path, None, rows))
    with pytest.raises(DataError, match="not of 'third'"):
        drawn(real(tmp_path, None, rows, generator="third"))
    corpus = drawn(real(tmp_path, None, rows, generator="other"))
    assert {p.original for p in by_split(corpus)["test"]} == {f"b {i}" for i in range(5)}
    assert corpus.facts["eval"]["baseline"] == "other"


def test_several_generators_in_one_column_are_told_apart(tmp_path: Path) -> None:
    rows = [asked(i, generator=g, output=f"{g} {i}") for i in range(4) for g in ("one", "other")]
    with pytest.raises(DataError, match="name one"):
        drawn(real(tmp_path, None, rows))
    corpus = drawn(real(tmp_path, None, rows, generator="one"))
    assert {p.original for p in by_split(corpus)["test"]} == {f"one {i}" for i in range(4)}


@pytest.mark.parametrize("key", ["instruction", "idx"])
def test_another_baseline_is_joined_by_instruction_and_not_by_row(tmp_path: Path, key: str) -> None:
    rows = [asked(i, idx=i) for i in range(10)]
    other = [
        {**({"idx": i} if key == "idx" else {"instruction": f"task {i}"}),
         "output": f"better {i}", "generator": "rival"}
        for i in reversed(range(10))
    ]  # fmt: skip
    baseline = write(tmp_path / "model_outputs.json", other)
    corpus = drawn(real(tmp_path, None, rows, baseline=baseline))
    for prompt in by_split(corpus)["test"]:
        assert prompt.original == f"better {prompt.text.split()[3]}"
    assert corpus.facts["eval"]["baseline"] == "rival"


@pytest.mark.parametrize(
    ("outputs", "problem"),
    [
        ([asked(i) for i in range(9)], r"has no answer to 1 .*'task 9'"),
        ([asked(i) for i in range(11)], r"answers what is not in .*'task 10'"),
        ([*(asked(i) for i in range(10)), asked(4)], r"answers twice: 'task 4'"),
        ([asked(i, output=" ") for i in range(10)], r"all 10 answers of 'model' are empty"),
        (
            [
                *({"idx": i, "output": "x", "generator": "m"} for i in range(9)),
                {"idx": 9, "output": None, "generator": "m"},
            ],
            r"'m' has no answer to 9",
        ),
    ],
)
def test_a_baseline_of_other_prompts_is_refused_and_they_are_named(
    tmp_path: Path, outputs: list[dict[str, Any]], problem: str
) -> None:
    baseline = write(tmp_path / "outputs.json", outputs)
    with pytest.raises(DataError, match=rf"outputs\.json: .*{problem}"):
        drawn(real(tmp_path, baseline=baseline))


@pytest.mark.parametrize("apart", [False, True])
def test_instructions_with_an_empty_answer_of_the_baseline_are_dropped_and_counted(
    apart: bool, tmp_path: Path
) -> None:
    outputs = [asked(i, output=" \n" if i in (2, 7) else f"answer {i}") for i in range(10)]
    pairs = [*(labelled(i) for i in range(9)), labelled(9, prompt="task 7")]
    baseline = write(tmp_path / "outputs.json", outputs) if apart else None
    corpus = drawn(real(tmp_path, pairs, None if apart else outputs, baseline=baseline), ALL)
    tested = {prompt.text.split()[3]: prompt.original for prompt in by_split(corpus)["test"]}
    assert tested == {str(i): f"answer {i}" for i in range(10) if i not in (2, 7)}
    facts = corpus.facts["eval"]
    assert facts["instructions"] == 8
    assert facts["dropped"] == {"empty answer of the baseline": 2}
    assert facts["first dropped"] == ["task 2", "task 7"]
    assert corpus.facts["pairs"]["dropped"]["held out"] == 1  # whoever the baseline is


def test_instructions_without_any_known_column_of_answers_are_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="reference_outputs"):
        drawn(real(tmp_path, None, [{"instruction": f"task {i}"} for i in range(3)]))


def test_ultrafeedback_and_the_805_instructions_are_read(shared: Path) -> None:
    data = shared / "data"
    task = build(
        data=str(data / "ultrafeedback-sample"),
        eval=str(data / "alpaca-eval" / "eval_set.jsonl.gz"),
        generator="gpt4_1106_preview",
    )
    corpus = task.corpus(Sizes(8000, 4711, 589, 805), np.random.default_rng(0))
    found = by_split(corpus)
    assert corpus.facts["eval"]["instructions"] == len(found["test"]) == 805
    assert corpus.facts["pairs"]["kept"] == len(found["train"]) + len(found["validation"]) == 1978
    assert len(corpus.texts) == len(found["train"])
    prompts = [p for p in corpus.prompts if p.split != "test"]
    pairs = task.pairs("", prompts, {}, np.random.default_rng(0))
    assert len(pairs) == 1978
    assert all(pair.chosen != pair.rejected for pair in pairs)
    one = next(p for p in found["test"] if "started their careers on Broadway" in p.text)
    assert one.original.startswith("Several famous actors started their careers on Broadway")


def test_the_baseline_of_the_first_alpaca_eval_is_used_without_its_two_empty_answers(
    shared: Path,
) -> None:
    data = shared / "data"
    task = build(
        data=str(data / "ultrafeedback-sample"), generator="text_davinci_003",
        eval=str(data / "alpaca-eval" / "eval_set.jsonl.gz"),
    )  # fmt: skip
    corpus = task.corpus(Sizes(10, 10, 2, 805), np.random.default_rng(0))
    tested = by_split(corpus)["test"]
    assert len(tested) == corpus.facts["eval"]["instructions"] == 803
    assert corpus.facts["eval"]["dropped"] == {"empty answer of the baseline": 2}
    assert all(prompt.original.strip() for prompt in tested)


def test_outputs_of_another_model_become_the_baseline(shared: Path) -> None:
    folder = shared / "data" / "alpaca-eval"
    task = build(
        data=str(shared / "data" / "ultrafeedback-sample"),
        eval=str(folder),
        eval_split="eval_set",
        baseline=str(folder / "outputs_alpaca-7b.jsonl.gz"),
    )
    corpus = task.corpus(Sizes(10, 10, 2, 805), np.random.default_rng(0))
    tested = by_split(corpus)["test"]
    assert corpus.facts["eval"]["baseline"] == "alpaca-7b"
    one = next(p for p in tested if "started their careers on Broadway" in p.text)
    assert one.original.endswith("Christopher Walken, and Jeremy Irons.")
    assert len({p.text for p in tested}) == 805
