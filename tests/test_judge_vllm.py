"""A judge that vLLM serves: the log-probabilities that it sends are the model's own.

`sh tests/vllm_environment.sh` makes the environment; HARNESS_VLLM_PYTHON names another one.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.backends import JudgeSettings
from harness.contracts.judge import Versus
from harness.contracts.task import Contest, SmallModel
from harness.errors import RequestError
from harness.judge.asking.answers import TOP, Token, from_logprobs
from harness.judge.asking.template import load_template
from harness.judge.judges import open_judge
from harness.train.policy import build_small, save_policy

from .models import SHAPE

pytestmark = pytest.mark.vllm

BARE = Contest("summary")
VOCABULARY = ("m", "M", "good", "bad", "film", "or")
TEMPLATE = """
form = "token"
max_tokens = 1
user = "{fence} {prompt} {fence} {first} {fence} {second} {fence} m or M"
[labels]
m = 1.0
M = 0.0
"""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A judge of random weights that knows few words, so that a label is often among the first."""
    folder = tmp_path_factory.mktemp("judge")
    shape = {**SHAPE, "max_position_embeddings": 128, "initializer_range": 0.4}
    save_policy(*build_small(SmallModel(VOCABULARY, shape), seed=5), folder)
    (folder / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")
    (folder / "ab.toml").write_text(TEMPLATE)
    return folder


@pytest.fixture(scope="module")
def url(model: Path, python: str) -> Iterator[str]:
    """The address of vLLM's own OpenAI-compatible server."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [
        python, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", port,
        "--model", str(model), "--served-model-name", "judge", "--dtype", "float32",
        "--max-model-len", "64", "--gpu-memory-utilization", "0.2", "--enforce-eager",
    ]  # fmt: skip
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1",
    }  # fmt: skip
    log = (model / "log").open("w")
    server = subprocess.Popen(
        command, env=environment, stdout=log, stderr=log, start_new_session=True
    )
    try:
        until = time.monotonic() + 240
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert server.poll() is None, (model / "log").read_text()[-3000:]
            assert time.monotonic() < until, "the server does not answer"
            time.sleep(0.5)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
        log.close()


def _answers(address: str) -> bool:
    try:
        urllib.request.urlopen(address, timeout=2).close()
    except OSError:
        return False
    return True


def settings(folder: Path, url: str, **more: Any) -> JudgeSettings:
    asked = {"model": "judge", "base_url": url, "template": str(folder / "ab.toml"), **more}
    return JudgeSettings(kind="openai", **asked)


def versus(words: int = 3) -> list[Versus]:
    answers = ["good", "bad film", "good or bad", "film or film"]
    return [
        Versus("film " * words, first, second)
        for first in answers
        for second in answers
        if first != second
    ]


def expected(folder: Path, one: Versus) -> float | None:
    """The reading of the model's five likeliest next tokens, by `transformers`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    asked = load_template(str(folder / "ab.toml")).messages(one)[-1]["content"]
    ids = tokenizer(asked, add_special_tokens=False, return_tensors="pt").input_ids
    with torch.no_grad():
        top = model(ids).logits[0, -1].log_softmax(-1).topk(TOP)
    tokens = tokenizer.convert_ids_to_tokens(top.indices.tolist())
    both = zip(tokens, top.values.tolist(), strict=True)
    return from_logprobs([Token(*token) for token in both], ("m", "M"))


def test_a_preference_is_that_of_the_models_own_log_probabilities(
    model: Path, url: str, tmp_path: Path
) -> None:
    with open_judge(settings(model, url), BARE, tmp_path) as opened:
        found = [reading.preference for reading in opened.judge(versus())]
        facts = opened.facts()
    assert facts["reading"]["used"] == "logprobs"
    assert found == [
        wanted if wanted is None else pytest.approx(wanted, abs=1e-5)
        for wanted in (expected(model, one) for one in versus())
    ]
    read = [preference for preference in found if preference is not None]
    assert len(read) >= 6
    assert max(read) - min(read) > 0.1
    assert facts["new_tokens"]["output"] >= len(found)


def test_a_model_that_it_does_not_serve_stops_at_the_first_call(
    model: Path, url: str, tmp_path: Path
) -> None:
    with (
        open_judge(settings(model, url, model="other"), BARE, tmp_path) as opened,
        pytest.raises(RequestError, match="has no model 'other'"),
    ):
        opened.judge(versus())


def test_one_question_that_is_too_long_is_refused_and_holds_up_no_other(
    model: Path, url: str, tmp_path: Path
) -> None:
    asked = [*versus(), *versus(words=80)[:1]]
    with open_judge(settings(model, url), BARE, tmp_path) as opened:
        *short, long = opened.judge(asked)
        assert opened.facts()["refused"] == 1
    assert long.preference is None
    assert long.said.startswith("refused (400)")
    assert [one.preference for one in short] == [
        one.preference for one in opened_again(model, url, tmp_path)
    ]


def opened_again(model: Path, url: str, folder: Path) -> list[Any]:
    with open_judge(settings(model, url), BARE, folder) as opened:
        return list(opened.judge(versus()))
