"""The exchange format: what is read, joined and named, and what is written comes back."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from harness.errors import DataError, RequestError
from harness.judge.exchange.annotations import annotation, export, folder_name, write
from harness.judge.exchange.json_rows import read_rows
from harness.judge.exchange.outputs import Output, Outputs, join, read_outputs
from harness.records import Completion, Verdict

ROWS = [
    {"instruction": "Say hi.", "output": "hi", "generator": "m", "dataset": "d"},
    {"instruction": "Say ho.\u2028Twice.", "output": "ho\nho", "generator": "m", "dataset": "d"},
]


def as_list(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    return path


def as_lines(path: Path, rows: Sequence[Any]) -> Path:
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def answers(source: str, texts: Mapping[str, str]) -> Outputs:
    return Outputs(source, source, tuple(Output(k, v, source) for k, v in texts.items()))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.jsonl.gz"])
def test_a_list_and_lines_packed_or_not_say_the_same(tmp_path: Path, name: str) -> None:
    write_as = as_list if name == "a.json" else as_lines
    found = read_outputs(str(write_as(tmp_path / name, ROWS)))
    assert found.generator == "m"
    assert found.rows == tuple(Output(**row) for row in ROWS)


def test_a_byte_order_mark_is_no_part_of_the_data(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS).encode())
    assert len(read_outputs(str(path)).rows) == 2


def test_without_a_generator_the_file_gives_the_name(tmp_path: Path) -> None:
    path = as_list(tmp_path / "mine.v2.json", [{"instruction": "a", "output": "b"}])
    assert read_outputs(str(path)).generator == "mine"


def test_a_file_of_several_generators_asks_for_one_of_them(tmp_path: Path) -> None:
    path = as_list(tmp_path / "a.json", [*ROWS, {**ROWS[0], "generator": "other"}])
    with pytest.raises(RequestError, match=r"holds m, other: name one, as in '.*a\.json#m'"):
        read_outputs(str(path))
    assert len(read_outputs(f"{path}#m").rows) == 2
    with pytest.raises(RequestError, match="did you mean 'other'"):
        read_outputs(f"{path}#othr")


def test_a_file_may_have_the_sign_in_its_name(tmp_path: Path) -> None:
    assert read_outputs(str(as_list(tmp_path / "a#m.json", ROWS))).generator == "m"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no rows"),
        (b"[]", "holds no rows"),
        (b"[1]", r"row 1: 1 is not a JSON object"),
        (b'{"instruction": "a", "output": "b"}\nnonsense', "line 2: not JSON"),
        (b'[{"instruction": "a"', "not JSON"),
        (b'{"instruction": "a", "output": 3}', "line 1: 'output' is 3, not a text"),
        (b'{"instruction": "a", "text": "b"}', "line 1: no 'output'; it has: instruction, text"),
        (b'{"instruction": null, "output": "b"}', "line 1: 'instruction' is None, not a text"),
        (b'{"output": "b"}', "line 1: no 'instruction'.*--instructions"),
        (b"[" * 200_000, "not JSON .*recursion"),
        (b'{"instruction": ' + b"[" * 200_000, "line 1: not JSON .*recursion"),
        (b"\xff\xfe\x00", "cannot be read"),
        (b"\x1f\x8b\x08broken", "cannot be read"),
    ],
)
def test_what_is_no_output_is_named_with_its_place(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        read_outputs(str(path))


def test_a_generators_name_cannot_command_the_terminal(tmp_path: Path) -> None:
    row = {"instruction": "a", "reference_outputs": {"\x1b[2J\u202eme": 3}}
    with pytest.raises(DataError, match=r"row 1, \\x1b\[2J\\u202eme: 'output' is 3") as caught:
        read_outputs(str(as_list(tmp_path / "a.json", [row])))
    assert str(caught.value).isprintable()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere\.json: cannot be read"):
        read_outputs(str(tmp_path / "nowhere.json"))


def test_rows_with_an_index_take_their_instruction_from_the_evaluation_set(tmp_path: Path) -> None:
    path = as_lines(tmp_path / "a.jsonl", [{"idx": 1, "output": "x"}, {"idx": 0, "output": "y"}])
    rows = [{"idx": 0, "instruction": "zero", "dataset": "d"}, {"idx": 1, "instruction": "one"}]
    as_lines(tmp_path / "eval_set.jsonl", rows)
    found = read_outputs(str(path))
    assert [(o.instruction, o.output, o.dataset) for o in found.rows] == [
        ("one", "x", ""), ("zero", "y", "d"),
    ]  # fmt: skip
    bad = as_lines(tmp_path / "b.jsonl", [{"idx": [7], "output": "x"}])
    with pytest.raises(DataError, match=r"line 1: .*idx \[7\] is in no evaluation set"):
        read_outputs(str(bad))


def test_alpaca_evals_own_files_are_read_and_joined(shared: Path) -> None:
    folder = shared / "data" / "alpaca-eval"
    baseline = read_outputs(f"{folder / 'eval_set.jsonl.gz'}#gpt4_1106_preview")
    outputs = read_outputs(str(folder / "outputs_vicuna-7b-v1.5.jsonl.gz"))
    found = join(outputs, baseline)
    assert len(found) == 805
    assert {row.dataset for row in outputs.rows} == {
        "helpful_base", "koala", "oasst", "selfinstruct", "vicuna"
    }  # fmt: skip
    assert all(a.instruction == b.instruction for a, b in found)
    assert found[0].answer.output.startswith("There have been many famous actors")
    assert found[0].baseline.output.startswith("Several famous actors")


def test_answers_are_joined_by_instruction_and_never_by_place() -> None:
    found = join(answers("m", {"a": "1", "b": "2"}), answers("base", {"b": "3", "a": "4"}))
    assert [(j.answer.output, j.baseline.output) for j in found] == [("1", "4"), ("2", "3")]


@pytest.mark.parametrize(
    ("mine", "theirs", "said"),
    [
        ("ab", "abc", r"^m has no answer to what base answers: 'c'"),
        ("abc", "ab", r"^base has no answer to what m answers: 'c'"),
        ("a", "abcdef", r"'b', 'c', 'd' and 2 more; .*--common"),
    ],
)
def test_an_instruction_that_one_side_lacks_is_named(mine: str, theirs: str, said: str) -> None:
    with pytest.raises(DataError, match=said):
        join(answers("m", dict.fromkeys(mine, "x")), answers("base", dict.fromkeys(theirs, "x")))


def test_what_both_have_is_judged_when_that_is_asked_for() -> None:
    mine, theirs = answers("m", {"a": "1", "b": "2"}), answers("base", {"b": "3", "c": "4"})
    assert [j.answer.instruction for j in join(mine, theirs, common=True)] == ["b"]
    with pytest.raises(DataError, match="no instruction in common"):
        join(mine, answers("base", {"x": "3"}), common=True)


@pytest.mark.parametrize("side", [0, 1])
def test_an_instruction_that_is_answered_twice_is_named(side: int) -> None:
    once = answers("good", {"a": "1"})
    twice = Outputs("bad", "bad", once.rows + once.rows)
    pair = (twice, once) if side == 0 else (once, twice)
    with pytest.raises(DataError, match=r"^bad: answered more than once: 'a'"):
        join(*pair)


def completion(prompt: str, text: str, *, sample: int = 0, temperature: float = 0.0) -> Completion:
    return Completion(
        f"id-{prompt}", sample, prompt, text, (1,), (2,), True, temperature=temperature,
        original=f"base {prompt}",
    )  # fmt: skip


def verdict(of: Completion, first: float | None, second: float | None) -> Verdict:
    mean = None if first is None or second is None else (first + second) / 2
    return Verdict(
        of.prompt_id, of.sample, of.temperature, first, second, mean, True, of.original
    )  # fmt: skip


def test_an_annotation_says_two_for_the_model_and_one_for_the_baseline() -> None:
    c = completion("a", "mine")
    row = annotation(
        Output("a", "mine", "m"), Output("a", "theirs", "base", "d"), verdict(c, 0.9, 0.5), "j"
    )
    assert (row["output_1"], row["output_2"]) == ("theirs", "mine")
    assert (row["generator_1"], row["generator_2"]) == ("base", "m")
    assert row["preference"] == pytest.approx(1.7)
    # In the first order the model's answer, output_2, is shown first.
    assert row["preference_output_2_first"] == pytest.approx(1.9)
    assert row["preference_output_1_first"] == pytest.approx(1.5)
    assert row["dataset"] == "d"


def test_what_could_not_be_read_is_null_and_not_a_tie() -> None:
    c = completion("a", "mine")
    _, (row,) = export([c], [verdict(c, None, 1.0)], "m", "d", "j")
    assert row["preference"] is None
    assert row["preference_output_1_first"] == 2.0


def test_every_answer_of_a_prompt_gets_a_generator_of_its_own() -> None:
    cs = [completion("a", "x", sample=s, temperature=t) for t in (0.0, 0.7) for s in (0, 1)]
    outputs, _ = export(cs, [], "dpo", "d")
    assert [o.generator for o in outputs] == [
        "dpo@0-sample0", "dpo@0-sample1", "dpo@0.7-sample0", "dpo@0.7-sample1"
    ]  # fmt: skip
    plain, _ = export([completion("a", "x"), completion("b", "y")], [], "dpo", "d")
    assert {o.generator for o in plain} == {"dpo"}


def test_verdicts_on_other_completions_are_refused() -> None:
    a, b = completion("a", "x"), completion("b", "y")
    with pytest.raises(DataError, match="judge them again"):
        export([a, b], [verdict(b, 1, 1), verdict(a, 0, 0)], "m", "d")


def test_what_is_written_can_be_read_and_judged_again(tmp_path: Path) -> None:
    texts = ["</script><b>bold</b>", "\x1b[2J\u202e wiped", "lone \ud800 surrogate", "ok\u2028"]
    cs = [completion(f"prompt {i}", text) for i, text in enumerate(texts)]
    outputs, rows = export(cs, [verdict(c, 1.0, 0.0) for c in cs], "dpo beta=0.1", "d", "my judge")
    assert write(tmp_path, outputs, rows) == 2
    folder = tmp_path / "dpo-beta=0.1"
    assert read_outputs(str(folder / "model_outputs.json")).rows == tuple(outputs)
    found = json.loads((folder / "my-judge" / "annotations.json").read_text(encoding="utf-8"))
    assert [row["output_2"] for row in found] == texts
    assert {row["preference"] for row in found} == {1.5}


@pytest.mark.parametrize("name", ["../../etc", "..", ".hidden", "a/b\\c", "", "\x00\u202e", "CON:"])
def test_a_generators_name_never_leads_out_of_its_folder(name: str) -> None:
    folder = folder_name(name)
    assert Path(folder).name == folder
    assert folder[0] not in ".-"
    assert folder.isascii()


def test_a_text_with_a_line_separator_is_one_row(tmp_path: Path) -> None:
    path = as_lines(tmp_path / "a.jsonl", ROWS)
    assert len(read_rows(path)) == 2
