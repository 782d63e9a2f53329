"""Completions by an OpenAI-compatible server are the policy's own, or the user is told why not."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.contracts.task import SmallModel
from harness.data.tokens import TokenRules
from harness.errors import HarnessError, RequestError
from harness.generate.arrived import Arrived
from harness.generate.complete import generate
from harness.generate.end_point import Choice, connect
from harness.generate.served import in_turn
from harness.records import Completion, read_jsonl
from harness.train.policy import adapt, build_small, load_policy, save_policy

from .completion_server import Server, completion_server
from .models import SHAPE, WORDS, World, make_world

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

LORA = {"rank": 4, "alpha": 16.0, "targets": "all-linear"}
SETTINGS: dict[str, Any] = {
    "splits": ["test"],
    "decoding": {"samples": 3, "temperatures": [0.0, 1.0], "max_tokens": 6},
    "seed": 7, "logprobs": True, "max_prompt_tokens": 16, "precision": "fp32", "engine": "shared",
}  # fmt: skip


def write_policy(folder: Path, seed: int) -> None:
    """One that is sure of itself, and hardly ever writes what no text shows."""
    shape = {**SHAPE, "num_hidden_layers": 2, "initializer_range": 0.4}
    model, tokenizer = build_small(SmallModel(WORDS, shape), seed)
    with torch.no_grad():
        model.lm_head.weight[[0, 1, 3]] = 0.0
    save_policy(model, tokenizer, folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = make_world(tmp_path_factory.mktemp("world"))
    write_policy(world.inputs["policy"], seed=3)
    return world


@pytest.fixture(scope="module")
def adapter(world: World) -> Path:
    model, tokenizer = load_policy(world.inputs["policy"])
    adapted = adapt(model, LORA, seed=0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.2)
    save_policy(adapted, tokenizer, world.folder / "adapter")
    return world.folder / "adapter"


def run_stage(
    world: World, url: str | None, name: str = "served", model: str = "base", **inputs: Path
) -> tuple[list[Completion], dict[str, Any]]:
    settings = dict(SETTINGS)
    if url is not None:
        settings["backend"] = {"name": "openai", "base_url": url, "model": model}
    work = replace(world.work(name, settings, **inputs), means={"concurrency": 4})
    scratch = work.scratch / "served.jsonl"
    scratch.unlink(missing_ok=True)
    facts = dict(generate(work))
    return read_jsonl(work.out / "completions.jsonl", Completion), facts


def greedy(found: list[Completion]) -> list[Completion]:
    return [c for c in found if not c.temperature]


def of_sampling(server: Server) -> list[dict[str, Any]]:
    return [body for body in server.bodies if body["temperature"]]


@pytest.mark.parametrize(
    "manners",
    [
        {},
        {"gives_ids": False},
        {"takes_ids": False},
        {"honours_n": False, "gives_logprobs": False, "takes_ids": False},
    ],
    ids=["like vLLM", "no ids back", "texts only", "like transformers serve"],
)
def test_a_served_policy_writes_what_it_writes_here(world: World, manners: dict[str, bool]) -> None:
    ours, _ = run_stage(world, None, "ours")
    with completion_server(world.inputs["policy"], **manners) as server:
        theirs, facts = run_stage(world, server.url)
    assert greedy(theirs) == greedy(ours)
    key = [(c.prompt_id, c.sample, c.temperature, c.prompt_ids) for c in ours]
    assert [(c.prompt_id, c.sample, c.temperature, c.prompt_ids) for c in theirs] == key
    assert len({c.ids for c in theirs}) > len(theirs) / 2
    rules = TokenRules.of(load_policy(world.inputs["policy"])[1])
    for c in theirs:
        assert c.text == rules.response_text(c.prompt_ids, c.ids)
        assert c.finished == (c.ids[-1] == rules.eos)
        assert (c.logprob is None) == (c.temperature == 0.0)
    assert {c.finished for c in theirs} == {True, False}
    assert facts["backend"]["name"] == "openai"
    assert facts["tokenised_otherwise"] == 0


def test_a_server_that_ignores_n_is_asked_once_for_every_completion_and_said(world: World) -> None:
    with completion_server(world.inputs["policy"]) as server:
        several, facts = run_stage(world, server.url)
        assert {body.get("n", 1) for body in of_sampling(server)} >= {3}
    assert not any("ignores n" in words for words in facts["end_point"])
    with completion_server(world.inputs["policy"], honours_n=False) as server:
        single, facts = run_stage(world, server.url)
        seeds = [body["seed"] for body in of_sampling(server)]
        assert sum("n" in body for body in server.bodies) == 1  # and then it was known
    assert any("ignores n" in words for words in facts["end_point"])
    assert len(single) == len(several)
    assert len(set(seeds)) == 3 * 12  # prompts


def test_what_a_server_cannot_do_is_said(world: World) -> None:
    poor = {"gives_ids": False, "gives_logprobs": False, "honours_seed": False, "takes_ids": False}
    with completion_server(world.inputs["policy"]) as server:
        assert len(run_stage(world, server.url)[1]["end_point"]) == 1  # that it agrees
    with completion_server(world.inputs["policy"], **poor) as server:
        said = " ".join(run_stage(world, server.url)[1]["end_point"])
    for words in ("no log-prob", "takes no token", "gives no token", "ignores seeds", "top-k"):
        assert words in said


def test_the_same_command_draws_the_same_completions(world: World) -> None:
    with completion_server(world.inputs["policy"]) as server:
        assert run_stage(world, server.url)[0] == run_stage(world, server.url)[0]


def test_the_models_own_decoding_defaults_are_switched_off(world: World) -> None:
    with completion_server(world.inputs["policy"]) as server:
        run_stage(world, server.url)
    for body in server.bodies:
        assert body["top_p"] == 1.0
        assert (body["top_k"], body["repetition_penalty"], body["min_p"]) == (-1, 1.0, 0.0)
        assert body["stop_token_ids"] == [2]


def test_an_adapter_is_loaded_asked_for_and_unloaded(world: World, adapter: Path) -> None:
    ours, _ = run_stage(world, None, "ours", trained=adapter)
    base, _ = run_stage(world, None, "ours")
    with completion_server(world.inputs["policy"]) as server:
        theirs, facts = run_stage(world, server.url, trained=adapter)
        assert server.calls["/v1/load_lora_adapter"] == 1
        assert server.loaded == {}
    assert greedy(theirs) == greedy(ours)
    assert [c.ids for c in greedy(theirs)] != [c.ids for c in greedy(base)]
    assert "the adapter moves them" in facts["end_point"][0]


def test_a_server_that_loads_no_adapters_is_refused_in_words(world: World, adapter: Path) -> None:
    with (
        completion_server(world.inputs["policy"], adapters=False) as server,
        pytest.raises(RequestError, match="VLLM_ALLOW_RUNTIME_LORA_UPDATING=1"),
    ):
        run_stage(world, server.url, trained=adapter)


def test_a_server_that_ignores_the_adapter_is_found_out(world: World, adapter: Path) -> None:
    with (
        completion_server(world.inputs["policy"], ignores=True) as server,
        pytest.raises(HarnessError, match=r"answers as the base does.*it is not this policy"),
    ):
        run_stage(world, server.url, trained=adapter)


def test_two_stages_never_ask_one_server_at_once(tmp_path: Path) -> None:
    """Or a vLLM whose slots are full would give the base an adapter's weights."""
    entered: list[str] = []

    def enter(url: str) -> None:
        with in_turn(tmp_path, url):
            entered.append(url)

    with in_turn(tmp_path, "http://one/v1"):
        other = threading.Thread(target=enter, args=["http://other/v1"])
        same = threading.Thread(target=enter, args=["http://one/v1"])
        same.start()
        other.start()
        other.join(10)
        same.join(0.2)
        assert entered == ["http://other/v1"]
    same.join(10)
    assert entered == ["http://other/v1", "http://one/v1"]


def test_a_policy_that_was_trained_whole_is_refused(world: World, tmp_path: Path) -> None:
    save_policy(*load_policy(world.inputs["policy"]), tmp_path)
    with (
        completion_server(world.inputs["policy"]) as server,
        pytest.raises(RequestError, match=r"set budget\.lora\.rank"),
    ):
        run_stage(world, server.url, trained=tmp_path)
    assert server.bodies == []


@pytest.mark.parametrize("logprobs", [True, False])
def test_a_server_with_another_model_is_found_out(
    logprobs: bool, world: World, tmp_path: Path
) -> None:
    write_policy(tmp_path, seed=4)
    with (
        completion_server(tmp_path, gives_logprobs=logprobs) as server,
        pytest.raises(HarnessError, match="it is not this policy"),
    ):
        run_stage(world, server.url)


def test_calls_that_fail_are_made_again_and_nothing_is_lost(world: World) -> None:
    with completion_server(world.inputs["policy"]) as server:
        whole, _ = run_stage(world, server.url)
    faults = {8: 429, 9: 500, 11: "garbage", 12: "empty", 14: 503, 16: "cut", 20: 408}
    with completion_server(world.inputs["policy"], faults=faults) as server:
        assert run_stage(world, server.url)[0] == whole
        assert server.calls["/v1/completions"] == len(server.bodies) + len(faults)


def test_what_arrived_before_a_failure_is_not_asked_for_again(world: World) -> None:
    with completion_server(world.inputs["policy"]) as server:
        whole, _ = run_stage(world, server.url)
        calls = server.calls["/v1/completions"]
    settings = {**SETTINGS, "backend": {"name": "openai", "base_url": "", "model": "base"}}
    faults: dict[int, int | str] = dict.fromkeys(range(calls - 8, 1000), 400)
    work = world.work("broken", settings)
    with completion_server(world.inputs["policy"], faults=faults) as server:
        settings["backend"] = {"name": "openai", "base_url": server.url, "model": "base"}
        work = replace(work, settings=settings, means={"concurrency": 1})
        with pytest.raises(HarnessError):
            generate(work)
        with (work.scratch / "served.jsonl").open("a") as file:
            file.write('\n{"prompt_id": "test-1", "tempera')  # as a kill leaves it
        kept = len(Arrived.of(work.scratch / "served.jsonl").found)
        server.faults, server.bodies = {}, []
        generate(work)
        groups = [b for b in server.bodies if "logprobs" not in b]
    assert 0 < kept < 24
    assert len(groups) == 24 - kept + 3  # how it draws is found out anew
    assert read_jsonl(work.out / "completions.jsonl", Completion) == whole


def test_a_wrong_key_and_an_unknown_model_stop_at_the_first_call(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret-that-is-wrong")
    with completion_server(world.inputs["policy"], key="the-right-one") as server:
        with pytest.raises(RequestError, match="OPENAI_API_KEY") as caught:
            run_stage(world, server.url)
        assert "a-secret" not in str(caught.value)
        monkeypatch.setenv("OPENAI_API_KEY", "the-right-one")
        with pytest.raises(RequestError, match=r"no model 'other'.*generation\.model"):
            run_stage(world, server.url, model="other")
        assert server.calls["/v1/completions"] == 1
        run_stage(world, server.url)


def test_a_server_that_completes_nothing_is_named(world: World) -> None:
    with (
        completion_server(world.inputs["policy"], completes=False) as server,
        pytest.raises(RequestError, match="/v1/completions"),
    ):
        run_stage(world, server.url)


# ---- One call


Says = Callable[[Message], tuple[int, str]]


@contextmanager
def saying(says: Says) -> Iterator[tuple[str, list[str]]]:
    """The address of a server that says anything to anybody, and the addresses it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append(self.path)
            status, words = says(self.headers)
            self.send_response(status)
            self.send_header("x-should-retry", "false")
            self.end_headers()
            self.wfile.write(words.encode())

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}/v1", asked
        finally:
            http.shutdown()
            thread.join()


def choices(*ended: Any, **more: Any) -> str:
    rows = [{"text": "half", "finish_reason": word, **more} for word in ended]
    return json.dumps({"choices": rows})


KEY = "sk-SECRET-0123456789-abcdefghijkl"


@pytest.mark.parametrize("before", [0, 280])  # the second one is cut within the key
@pytest.mark.parametrize("status", [400, 404, 500, 418])
def test_no_error_holds_the_key_or_a_part_of_it(
    status: int, before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)

    def echo(headers: Message) -> tuple[int, str]:
        return status, "y" * before + headers["Authorization"].removeprefix("Bearer ") + " is bad"

    with (
        saying(echo) as (url, _),
        connect(url, "m") as point,
        pytest.raises(HarnessError) as caught,
    ):
        point.complete({"prompt": "x"})
    assert str(status) in str(caught.value)
    assert "[key]" in str(caught.value)
    assert KEY[:10] not in str(caught.value)


def test_only_an_answer_that_says_stop_is_finished() -> None:
    with saying(lambda _: (200, choices("stop", "length"))) as (url, _), connect(url, "m") as point:
        assert [choice.finished for choice in point.complete({"n": 2})] == [True, False]


@pytest.mark.parametrize("word", ["abort", "content_filter", "tool_calls", "error", None])
def test_an_answer_that_the_server_ended_itself_is_asked_for_again_and_then_an_error(
    word: str | None,
) -> None:
    ends = [word, word, "stop"]
    with saying(lambda _: (200, choices("stop", ends.pop(0)))) as (url, asked):
        with connect(url, "m") as point:
            assert [choice.finished for choice in point.complete({"n": 2})] == [True, True]
        assert len(asked) == 3
    with (
        saying(lambda _: (200, choices("stop", word))) as (url, asked),
        connect(url, "m") as point,
        pytest.raises(HarnessError, match=f"answered 4 times .*finish_reason '{word}'"),
    ):
        point.complete({"n": 2})


def test_an_aborted_answer_gets_no_end_and_moves_no_other(world: World) -> None:
    with completion_server(world.inputs["policy"]) as server:
        whole, _ = run_stage(world, server.url)
    faults = dict.fromkeys((9, 12, 13), json.loads(choices("abort", None, "abort")))
    with completion_server(world.inputs["policy"], faults=faults) as server:
        assert run_stage(world, server.url)[0] == whole
        assert server.calls["/v1/completions"] == len(server.bodies) + len(faults)


@pytest.mark.parametrize(
    "body", ["[" * 200_000, choices("stop", token_ids=[float("inf")]),
             choices("stop", logprobs={"token_logprobs": [-(10**400)]})],
    ids=["deep", "an endless id", "an endless number"],
)  # fmt: skip
def test_a_body_that_no_model_writes_is_an_error_in_words(body: str) -> None:
    with (
        saying(lambda _: (200, body)) as (url, _),
        connect(url, "m") as point,
        pytest.raises(HarnessError, match="answered 4 times without a completion"),
    ):
        point.complete({"prompt": "x"})


def test_a_proxy_is_for_other_machines_and_not_for_this_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("NO_PROXY", "no_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "word")
    with (
        saying(lambda _: (200, choices("stop"))) as (here, asked),
        saying(lambda _: (200, choices("length"))) as (proxy, through),
    ):
        for name in ("HTTP_PROXY", "http_proxy"):
            monkeypatch.setenv(name, proxy.removesuffix("/v1"))
        with connect(here, "m") as point:
            assert point.complete({"prompt": "x"})[0].finished
        assert (len(asked), through) == (1, [])
        with connect("http://there.invalid/v1", "m") as point:
            assert not point.complete({"prompt": "x"})[0].finished
    assert through == ["http://there.invalid/v1/completions"]


def test_a_line_that_is_no_answer_has_not_arrived(tmp_path: Path) -> None:
    path = tmp_path / "served.jsonl"
    rows = [["half", "abort", None, None], ["older", True, None, None], ["short"]]
    lines = [json.dumps({"prompt_id": f"p{i}", "temperature": 0.0, "choices": [row]})
             for i, row in enumerate([*rows, ["right", "stop", [5, 2], [-0.5, -0.1]]])]  # fmt: skip
    path.write_text("\n".join(['{"prompt_id": "a", "temperature": 0.0}', "[1]", *lines]))
    kept = Choice("right", "stop", (5, 2), (-0.5, -0.1))
    assert Arrived.of(path).found == {("p3", 0.0): [kept]}


# ---- A server of somebody else's


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(url: str, process: subprocess.Popen[Any], seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"no server at {url}: status {process.poll()}")


def test_transformers_serve_is_asked_as_it_can_be_and_its_silence_is_said(world: World) -> None:
    pytest.importorskip("fastapi")
    port, folder = free_port(), str(world.inputs["policy"])
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    command = [str(Path(sys.executable).with_name("transformers")), "serve", folder]
    process = subprocess.Popen(
        [*command, "--host", "127.0.0.1", "--port", str(port), "--device", "cpu",
         "--dtype", "float32"], env=environment,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, 60)
        ours, _ = run_stage(world, None, "ours")
        theirs, facts = run_stage(world, f"http://127.0.0.1:{port}/v1", model=folder)
    finally:
        process.kill()
        process.wait()
    assert greedy(theirs) == greedy(ours)
    said = " ".join(facts["end_point"])
    for words in ("ignores n", "no log-prob", "takes no token ids"):
        assert words in said
