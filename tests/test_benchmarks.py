"""The benchmarks' own rules: the same work for all, nothing compared that is not comparable."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from harness.budget import ModelSize
from harness.data.token_store import load_pairs
from harness.data.tokens import TokenPair
from harness.errors import GateError, RequestError
from harness.train.policy import load_policy

ROOT = Path(__file__).parents[1]
CONTESTANT = """
from benchmarks.turns import Turns
print("a library's banner")
turns = Turns(peak=lambda: 7)
print("a progress bar")
turns.ready(device="cpu")
for step in range(100):
    turns.step_done(step / 10)
"""


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of the checkout's `benchmarks`, which is no part of the distribution."""
    monkeypatch.syspath_prepend(str(ROOT))

    def load(name: str) -> ModuleType:
        return importlib.import_module(f"benchmarks.{name}")

    return load


def result(module: Any, name: str, walls: list[float], losses: list[float]) -> Any:
    """Of one step in each round, after one step to warm up."""
    contest = module("contest")
    rounds = [
        contest.Round(wall, 2 * wall, [loss], 10)
        for wall, loss in zip([9.0, *walls], losses, strict=True)
    ]
    return contest.Result(name, 1.0, {}, rounds[0], rounds[1:])


@pytest.mark.parametrize("profile", ["table", "tldr", "hh", "ultrafeedback"])
def test_lengths_have_the_medians_of_their_profile(module: Any, profile: str) -> None:
    workload = module("workload")
    pairs = workload.random_pairs(workload.Spec(profile), 2000)
    for text, wanted in (("prompt", 0), ("chosen", 1), ("rejected", 1)):
        lengths = sorted(len(getattr(pair, text)) for pair in pairs)
        rule = workload.PROFILES[profile][wanted]
        assert rule.low <= lengths[0]
        assert lengths[-1] <= rule.high
        median = rule.median or (rule.low + rule.high) / 2
        assert lengths[1000] == pytest.approx(median, rel=0.07)


def test_every_answer_ends_and_nothing_else_is_special(module: Any) -> None:
    workload = module("workload")
    for pair in workload.random_pairs(workload.Spec(), 50):
        assert pair.prompt[0] == 1
        for ids in (pair.prompt[1:], pair.chosen[:-1], pair.rejected[:-1]):
            assert min(ids) >= 4
            assert max(ids) < workload.VOCABULARY
        assert pair.chosen[-1] == pair.rejected[-1] == 2


def test_the_written_tokenizer_gives_the_ids_back(module: Any, tmp_path: Path) -> None:
    workload = module("workload")
    spec = workload.Spec(steps=1, per_step=2)
    pairs = workload.make(spec, tmp_path, None, None)
    model, tokenizer = load_policy(tmp_path / "model")
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(15.2e6, rel=0.01)
    assert list(load_pairs(tmp_path / "tokens", "train")) == pairs
    written = json.loads((tmp_path / "pairs.json").read_text())
    assert written == [[list(p.prompt), list(p.chosen), list(p.rejected)] for p in pairs]
    for prompt, chosen, _ in written:
        text = "".join(f"{i} " for i in prompt[1:]) + "".join(f"{i} " for i in chosen[:-1])
        assert tokenizer(text + "<eos>")["input_ids"] == prompt + chosen


def test_texts_without_a_tokenizer_are_refused(module: Any, tmp_path: Path) -> None:
    workload = module("workload")
    with pytest.raises(RequestError, match="go together"):
        workload.make(workload.Spec(), tmp_path, tmp_path, None)


def test_a_contestant_stops_after_each_round_and_its_prints_are_no_answers() -> None:
    process = subprocess.run(
        [sys.executable, "-c", CONTESTANT], input="go 2\ngo 3\nend\n", text=True,
        capture_output=True, cwd=ROOT, check=True,
    )  # fmt: skip
    banner, ready, first, second = process.stdout.splitlines()
    assert banner == "a library's banner"
    assert json.loads(ready)["device"] == "cpu"
    assert json.loads(first)["losses"] == [0.0, 0.1]
    assert json.loads(second)["losses"] == [0.2, 0.3, 0.4]
    assert json.loads(second)["peak"] == 7
    assert "a progress bar" in process.stderr


def test_a_contestant_ends_with_its_driver() -> None:
    process = subprocess.run(
        [sys.executable, "-c", CONTESTANT], input="", text=True, capture_output=True, cwd=ROOT,
        check=False,
    )  # fmt: skip
    assert process.returncode == 0


def test_losses_that_differ_are_not_compared_in_speed(module: Any) -> None:
    figures = module("figures")
    ours = result(module, "ours", [1.0, 1.0], [0.7, 0.6, 0.5])
    near = result(module, "near", [1.0, 1.0], [0.7, 0.6, 0.50005])
    far = result(module, "far", [1.0, 1.0], [0.7, 0.6002, 0.5])
    assert figures.check_losses([ours, near], "fp32") == pytest.approx(5e-5)
    with pytest.raises(GateError, match=r"step 1: the loss of ours .* that of far"):
        figures.check_losses([ours, near, far], "fp32")


def test_a_loss_that_is_not_a_number_is_not_equal(module: Any) -> None:
    ours = result(module, "ours", [1.0], [0.7, 0.6])
    broken = result(module, "broken", [1.0], [0.7, float("nan")])
    with pytest.raises(GateError, match="step 1"):
        module("figures").check_losses([ours, broken], "bf16")


def test_ratios_are_of_the_same_rounds(module: Any) -> None:
    figures = module("figures")
    ours = result(module, "ours", [1.0, 2.0, 4.0], [0.7] * 4)
    peer = result(module, "peer", [5.0, 8.0, 40.0], [0.7] * 4)
    assert figures.speed_ratio(ours, peer) == figures.Spread(5.0, 4.0, 10.0)
    assert figures.pairs_per_second(ours, 8) == figures.Spread(4.0, 2.0, 8.0)
    assert figures.pairs_per_second(ours, 8, cpu=True).median == 2.0
    assert figures.fastest([peer, ours]) is ours


def test_the_warm_up_is_in_no_figure(module: Any) -> None:
    ours = result(module, "ours", [1.0, 2.0], [0.7] * 3)
    assert module("figures").per_second(ours, [100.0, 10.0, 8.0], 1) == [10.0, 4.0]


@pytest.mark.parametrize(("lora", "wanted"), [(False, 6), (True, 4)])
def test_the_floor_counts_a_prompt_once_and_the_head_on_answers(
    module: Any, lora: bool, wanted: int
) -> None:
    pair = TokenPair("pair", (1, 5, 6), (7, 8, 2), (9, 2))
    floor = module("floor").pair_flops(pair, ModelSize(body=1000, head=10), lora=lora)
    assert floor == wanted * (1000 * (3 + 3 + 2 + 1) + 10 * (3 + 2))


def test_a_comparison_counts_once_what_is_shared_and_the_rest_for_every_run(module: Any) -> None:
    contest = module("contest")
    cells = contest.Round(60.0, 60.0, [0.7] * 12, 10)
    ours = contest.Result("ours", 40.0, {}, cells, [])
    runs = [
        contest.Result("peer", up, {}, contest.Round(wall, wall, [0.7], 10), [])
        for up, wall in ((10.0, 30.0), (20.0, 40.0))
    ]
    text = module("comparison").table(ours, runs)
    assert f"| {40 + 36 * 5} s |" in text
    assert f"| {36 * (15 + 35)} s |" in text
    assert "0.122 of TRL's time" in text


def test_an_unknown_contestant_is_named(module: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no contestant 'trl'"):
        module("contest").command("trl", tmp_path, tmp_path)


def test_our_contestant_trains_on_the_workload(module: Any, tmp_path: Path) -> None:
    workload, contest = module("workload"), module("contest")
    spec = workload.Spec("tldr", "tiny", "fp32", steps=2, per_step=2, learning_rate=1e-3)
    workload.make(spec, tmp_path, None, None)
    names = ["ours/shared", "ours/padded"]
    found = contest.race(names, tmp_path, tmp_path, warm=1, rounds=1, steps=1, threads=1)
    assert [len(r.losses) for r in found] == [2, 2]
    assert found[0].losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert module("figures").check_losses(found, "fp32") <= 1e-4
