"""A real vLLM on a CPU: its numbers are ours, adapters are right, nothing of it is left behind.

`sh tests/vllm_environment.sh` makes the environment; HARNESS_VLLM_PYTHON names another one.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.contracts.task import SmallModel
from harness.data.tokens import Ids, TokenRules
from harness.errors import GateError, HarnessError
from harness.generate.complete import generate
from harness.generate.selfcheck import Tried, compare
from harness.generate.vllm_engine import Engine
from harness.generate.vllm_resident import ENGINES
from harness.generate.vllm_setup import Request, Setup
from harness.records import Completion, read_jsonl
from harness.train.policy import adapt, build_small, load_policy, load_trained, save_policy

from .models import SHAPE, WORDS, World, make_world

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
]

LORA = {"rank": 4, "alpha": 16.0, "targets": "all-linear"}
PROMPTS: list[Ids] = [(1, 4, 5, 6), (1, 9), (1, 10, 11, 12, 13, 4, 5, 7)]
ENDS = (2,)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """With a policy that is sure enough of itself that rounding decides nothing."""
    world = make_world(tmp_path_factory.mktemp("world"))
    shape = {**SHAPE, "num_hidden_layers": 2, "initializer_range": 0.4}
    save_policy(*build_small(SmallModel(WORDS, shape), seed=3), world.inputs["policy"])
    # Decoding defaults of its own, none of which may leak in.
    config = world.inputs["policy"] / "generation_config.json"
    leaks = {"do_sample": True, "top_k": 1, "repetition_penalty": 5.0, "min_new_tokens": 5}
    config.write_text(json.dumps({**json.loads(config.read_text()), **leaks}))
    return world


@pytest.fixture(scope="module")
def adapters(world: World) -> dict[str, Path]:
    """Two adapters on the policy, each of which changes what it writes."""
    found = {}
    for seed, name in enumerate(("first", "second")):
        model, tokenizer = load_policy(world.inputs["policy"])
        adapted = adapt(model, LORA, seed)
        draw = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for key, parameter in adapted.named_parameters():
                if "lora_B" in key:
                    parameter.copy_(0.2 * torch.randn(parameter.shape, generator=draw))
        found[name] = world.folder / name
        save_policy(adapted, tokenizer, found[name])
    return found


@pytest.fixture(scope="module")
def setup(world: World, python: str) -> Setup:
    return Setup(world.inputs["policy"], "float32", 32, LORA["rank"], python)


@pytest.fixture(scope="module")
def engine(setup: Setup) -> Iterator[Engine]:
    made = Engine(setup)
    yield made
    made.close()


def model_of(world: World, adapter: Path | None = None) -> Any:
    policy = world.inputs["policy"]
    return (load_trained(policy, adapter) if adapter else load_policy(policy))[0].eval()


def greedy(model: Any, prompt: Ids, most: int) -> Ids:
    """By plain passes over the whole text: slow, and nothing to go wrong."""
    ids = list(prompt)
    while len(ids) - len(prompt) < most and (len(ids) == len(prompt) or ids[-1] not in ENDS):
        with torch.no_grad():
            ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return tuple(ids[len(prompt) :])


def trouble(world: World, engine: Engine, requests: Sequence[Request]) -> list[str | None]:
    """What the harness's own check says of each answer to these requests, made in one batch."""
    answers = engine.write(requests, 12, ENDS, logprobs=True)
    return [
        compare(
            [Tried(r.ids, *answer)], model_of(world, r.adapter),
            model_of(world) if r.adapter else None,
        ).trouble("fp32")
        for r, answer in zip(requests, answers, strict=True)
    ]  # fmt: skip


def test_greedy_answers_are_those_of_transformers(world: World, engine: Engine) -> None:
    model = model_of(world)
    found = engine.write([Request(prompt) for prompt in PROMPTS], 16, ENDS)
    assert [answer.ids for answer in found] == [greedy(model, p, 16) for p in PROMPTS]
    assert len({answer.ids for answer in found}) == len(PROMPTS)


def test_log_probs_are_those_of_transformers_at_every_temperature(
    world: World, engine: Engine
) -> None:
    model = model_of(world)
    requests = [Request(p, temperature, 5) for p in PROMPTS for temperature in (0.0, 0.5, 1.0)]
    answers = engine.write(requests, 12, ENDS, logprobs=True)
    for request, answer in zip(requests, answers, strict=True):
        off = compare([Tried(request.ids, *answer)], model).logprobs
        assert off is not None
        assert off < 1e-4


def test_an_answer_ends_with_the_first_id_that_ends_it_and_no_other(
    world: World, engine: Engine
) -> None:
    plain = max((greedy(model_of(world), p, 8) for p in PROMPTS), key=lambda ids: len(set(ids)))
    prompt = next(p for p in PROMPTS if greedy(model_of(world), p, 8) == plain)
    last = plain[-2]
    (found,) = engine.write([Request(prompt)], 8, [2, last])
    assert found.ids == plain[: plain.index(last) + 1]
    assert len(plain) > len(found.ids)
    requests = [Request(PROMPTS[1], 1.0, seed) for seed in range(60)]
    whole = engine.write(requests, 12, [])
    assert all(len(answer.ids) == 12 for answer in whole)
    assert any(2 in answer.ids for answer in whole)  # which ends nothing unless it is named


def test_a_seed_gives_one_answer_whatever_else_is_asked(engine: Engine) -> None:
    requests = [Request(p, 1.0, seed) for p in PROMPTS for seed in range(6)]
    found = engine.write(requests, 8, ENDS)
    assert engine.write(requests, 8, ENDS) == found
    assert engine.write(requests[3:5], 8, ENDS) == found[3:5]
    assert len({answer.ids for answer in found[:6]}) > 3
    assert engine.write([replace(r, seed=r.seed + 100) for r in requests], 8, ENDS) != found


def test_more_prompts_than_fit_into_one_step_are_sampled_as_one_by_one(setup: Setup) -> None:
    """A prompt read in two steps draws once too often in vLLM 0.32, and on a CPU it fails."""
    several = Engine(replace(setup, longest=64))
    try:
        prompt = (1, *(4 + i % 12 for i in range(55)))
        requests = [Request(prompt, 1.0, seed) for seed in range(300)]
        found = several.write(requests, 3, ENDS)
        assert several.write(requests[140:160], 3, ENDS) == found[140:160]
    finally:
        several.close()


def test_samples_have_the_policys_own_frequencies(world: World, engine: Engine) -> None:
    from scipy.stats import chisquare

    logits = model_of(world)(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1].double()
    for temperature in (1.0, 0.5):
        requests = [Request(PROMPTS[0], temperature, seed) for seed in range(1500)]
        drawn = [answer.ids[0] for answer in engine.write(requests, 1, ENDS)]
        shares = (logits / temperature).softmax(-1).detach().numpy()
        kept = shares * len(drawn) > 1
        counts = torch.bincount(torch.tensor(drawn), minlength=len(shares)).numpy()[kept]
        expected = shares[kept] / shares[kept].sum() * counts.sum()
        assert chisquare(counts, expected).pvalue > 1e-4


def test_an_adapter_gives_what_peft_gives(
    world: World, engine: Engine, adapters: dict[str, Path]
) -> None:
    for adapter in adapters.values():
        model = model_of(world, adapter)
        found = engine.write([Request(p, adapter=adapter) for p in PROMPTS], 12, ENDS)
        assert [answer.ids for answer in found] == [greedy(model, p, 12) for p in PROMPTS]
        assert [a.ids for a in found] != [greedy(model_of(world), p, 12) for p in PROMPTS]


def test_the_base_is_itself_again_after_an_adapter_and_beside_it(
    world: World, engine: Engine, adapters: dict[str, Path]
) -> None:
    base = [Request(p) for p in PROMPTS]
    adapted = [Request(p, adapter=adapters["first"]) for p in PROMPTS]
    # No slot must remember who was in it.
    for adapter in (*adapters.values(), *adapters.values()):
        engine.write([replace(adapted[0], adapter=adapter)], 1, ENDS)
    for batch in (adapted, base, [*base, *adapted], [*adapted, *base]):
        assert trouble(world, engine, batch) == [None] * len(batch)


def test_with_a_slot_too_few_the_base_is_wrong_and_the_check_sees_it(
    world: World, setup: Setup, adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this fails, vLLM is mended and `SPARE` may be 0."""
    monkeypatch.setattr("harness.generate.vllm_setup.SPARE", 0)
    full = Engine(setup)
    try:
        base = [Request(p) for p in PROMPTS]
        adapted = [Request(p, adapter=adapters["first"]) for p in PROMPTS]
        found = trouble(world, full, [*base, *adapted])
    finally:
        full.close()
    assert any(found[: len(base)])
    assert not any(found[len(base) :])


def test_what_vllm_says_of_its_failure_is_what_the_user_reads(
    world: World, setup: Setup, tmp_path: Path
) -> None:
    broken = tmp_path / "policy"
    shutil.copytree(world.inputs["policy"], broken)
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(HarnessError, match=r"vLLM could not start: .*Error"):
        Engine(replace(setup, model=broken))


def test_a_process_without_vllm_says_so(setup: Setup) -> None:
    with pytest.raises(HarnessError, match="No module named 'vllm'"):
        Engine(replace(setup, python=sys.executable))


# ---- The stage

SETTINGS = {
    "splits": ["test"],
    "decoding": {"samples": 3, "temperatures": [0.0, 1.0], "max_tokens": 8},
    "seed": 7, "logprobs": True, "max_prompt_tokens": 16, "precision": "fp32", "engine": "shared",
}  # fmt: skip
VLLM = {"backend": {"name": "vllm", "version": "0.32.0", "lora_rank": LORA["rank"]}}


def run_stage(
    world: World, name: str, python: str, settings: Any = VLLM, **inputs: Path
) -> tuple[list[Completion], dict[str, Any]]:
    work = replace(world.work(name, {**SETTINGS, **settings}, **inputs), means={"python": python})
    facts = dict(generate(work))
    return read_jsonl(work.out / "completions.jsonl", Completion), facts


def test_the_stage_writes_what_it_writes_without_vllm(
    world: World, python: str, adapters: dict[str, Path]
) -> None:
    """Greedy answers, their order, texts and log-probs; and samples of the same kind."""
    pids = set()
    for given in ({}, {"trained": adapters["first"]}, {"trained": adapters["second"]}, {}):
        ours, _ = run_stage(world, "ours", python, {}, **given)
        theirs, facts = run_stage(world, "theirs", python, **given)
        assert greedy_ones(theirs) == greedy_ones(ours)
        key = [(c.prompt_id, c.sample, c.temperature, c.prompt_ids) for c in ours]
        assert [(c.prompt_id, c.sample, c.temperature, c.prompt_ids) for c in theirs] == key
        rules = TokenRules.of(load_policy(world.inputs["policy"])[1])
        for c in theirs:
            assert c.finished == (c.ids[-1] == rules.eos)
            assert c.text == rules.response_text(c.prompt_ids, c.ids)
            assert (c.logprob is None) == (c.temperature == 0.0)
        assert len({c.ids for c in theirs if c.temperature}) > 12
        assert "agree" in facts["agreement"]
        assert facts["backend"]["vllm"] == "0.32.0"
        assert ENGINES._kept is not None
        pids.add(ENGINES._kept[1].pid)
    assert len(pids) == 1  # one engine served them all


def test_a_policy_that_was_trained_whole_gets_an_engine_of_its_own(
    world: World, python: str, tmp_path: Path
) -> None:
    run_stage(world, "base", python)
    assert ENGINES._kept is not None
    before = ENGINES._kept[1].pid
    shape = {**SHAPE, "num_hidden_layers": 2, "initializer_range": 0.4}
    save_policy(*build_small(SmallModel(WORDS, shape), seed=4), tmp_path)
    ours, _ = run_stage(world, "ours", python, {}, trained=tmp_path)
    theirs, _ = run_stage(world, "theirs", python, trained=tmp_path)
    assert [c.ids for c in ours if not c.temperature] == [
        c.ids for c in theirs if not c.temperature
    ]
    assert gone(before, within=10)


def test_an_engine_with_another_model_voids_the_stage(
    world: World, python: str, adapters: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if vLLM had ignored the adapter, which is a bug that it has had."""
    monkeypatch.setattr("harness.generate.elsewhere.Request", lambda *r, **_: Request(*r[:3]))
    with pytest.raises(GateError, match="answers as the base does"):
        run_stage(world, "wrong", python, trained=adapters["first"])
    assert ENGINES._kept is None  # it is not trusted again


# ---- What is left behind

HOLDER = """
import sys, time
from pathlib import Path
from harness.generate.vllm_engine import Engine
from harness.generate.vllm_setup import Setup
if __name__ == "__main__":
    engine = Engine(Setup(Path(sys.argv[1]), "float32", 32, 0, sys.argv[2]))
    print(engine.pid, flush=True)
    {then}
"""


def gone(pid: int, within: float) -> bool:
    """Whether a process has ended, or does so in some seconds; a zombie has."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.parametrize("busy", [False, True])
def test_no_engine_outlives_a_killed_process(
    busy: bool, world: World, python: str, tmp_path: Path
) -> None:
    work = (
        "from harness.generate.vllm_setup import Request\n"
        "    while True: engine.write([Request((1, 4, 5), 1.0)] * 64, 16, [])"
    )
    script = tmp_path / "holder.py"
    script.write_text(HOLDER.format(then=work if busy else "time.sleep(600)"))
    holder = subprocess.Popen(
        [sys.executable, str(script), str(world.inputs["policy"]), python],
        stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1],
    )  # fmt: skip
    assert holder.stdout is not None
    with holder.stdout:
        pid = int(holder.stdout.readline())
        time.sleep(0.5 if busy else 0)
        assert not gone(pid, within=0.1)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert gone(pid, within=20)


def test_an_engine_that_was_killed_is_said_and_replaced(world: World, setup: Setup) -> None:
    with ENGINES.borrowed(setup) as engine:
        first = engine.pid
    os.kill(first, signal.SIGKILL)
    assert gone(first, within=10)
    with ENGINES.borrowed(setup) as engine:
        assert engine.pid != first
        assert engine.write([Request(PROMPTS[0])], 4, ENDS)
        os.kill(engine.pid, signal.SIGKILL)
        with pytest.raises(HarnessError, match="killed by signal 9"):
            engine.write([Request(PROMPTS[0])], 4, ENDS)
    ENGINES.close()


# ---- vLLM's own server


@contextmanager
def vllm_server(world: World, python: str, max_loras: int) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", port,
        "--model", str(world.inputs["policy"]), "--served-model-name", "base", "--dtype", "float32",
        "--max-model-len", "32", "--gpu-memory-utilization", "0.2", "--enforce-eager",
        "--enable-lora", "--max-loras", str(max_loras), "--max-lora-rank", "8",
    ]  # fmt: skip
    environment = {
        **os.environ, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1", "HF_HUB_OFFLINE": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_NO_USAGE_STATS": "1",
    }  # fmt: skip
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        until = time.monotonic() + 180
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                    break
            except OSError:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < until, "the server does not answer"
                time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def served(world: World, url: str, **inputs: Path) -> tuple[list[Completion], dict[str, Any]]:
    backend = {"name": "openai", "base_url": url, "model": "base"}
    (world.folder / "served-scratch" / "served.jsonl").unlink(missing_ok=True)
    return run_stage(world, "served", "", {"backend": backend}, **inputs)


def test_vllms_server_writes_what_it_writes_here_whoever_was_in_its_slots(
    world: World, python: str, adapters: dict[str, Path]
) -> None:
    """With one slot, which is never empty again: base and adapter must not meet in a batch."""
    with vllm_server(world, python, max_loras=1) as url:
        for given in ({}, {"trained": adapters["first"]}, {"trained": adapters["second"]}, {}):
            ours, _ = run_stage(world, "ours", python, {}, **given)
            theirs, facts = served(world, url, **given)
            assert greedy_ones(theirs) == greedy_ones(ours)
            assert [c.prompt_ids for c in theirs] == [c.prompt_ids for c in ours]
            assert served(world, url, **given)[0] == theirs
            assert len({c.ids for c in theirs if c.temperature}) > 12
            assert facts["tokenised_otherwise"] == 0
            assert len(facts["end_point"]) == 1  # that it agrees: it can do all that is asked


def greedy_ones(found: list[Completion]) -> list[Completion]:
    return [c for c in found if not c.temperature]
