"""Judges that are really served: `transformers serve`, which says nothing of what it cannot do."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.backends import JudgeSettings
from harness.contracts.judge import Versus
from harness.contracts.task import Contest
from harness.errors import HarnessError, RequestError
from harness.judge.judges import open_judge

pytest.importorskip("fastapi", reason="pip install 'transformers[serving]'")
pytest.importorskip("uvicorn", reason="pip install 'transformers[serving]'")

BARE = Contest("summary")
TEMPLATE = """
form = "token"
max_tokens = 3
user = "{fence} {prompt} {fence} {first} {fence} {second} {fence} A or B ?"
[labels]
A = 1.0
B = 0.0
"""


def versus() -> list[Versus]:
    return [Versus(f"story {row}", "a dog ran", "a cat sat " * row) for row in range(4)]


@pytest.fixture(scope="module")
def served(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Address and model of a server with a tiny model that tells stories and cannot judge."""
    folder = tmp_path_factory.mktemp("served")
    for path in (shared / "models" / "stories260k-llama").iterdir():
        shutil.copyfile(path, folder / path.name)
    (folder / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (folder / "log").open("w")
    command = [str(Path(sys.executable).parent / "transformers"), "serve", "--host", "127.0.0.1"]
    server = subprocess.Popen(
        [*command, "--port", str(port)], stdout=log, stderr=log,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        _wait(server, f"http://127.0.0.1:{port}/health")
        yield f"http://127.0.0.1:{port}/v1", str(folder)
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def _wait(server: subprocess.Popen[bytes], health: str) -> None:
    end = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(health, timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            assert server.poll() is None
            assert time.monotonic() < end
            time.sleep(0.2)


def test_log_probabilities_that_are_silently_ignored_are_noticed(
    served: tuple[str, str], tmp_path: Path
) -> None:
    url, model = served
    (tmp_path / "ab.toml").write_text(TEMPLATE)
    settings = JudgeSettings(
        model=model, base_url=url, kind="openai", template=str(tmp_path / "ab.toml"), timeout=60
    )
    with open_judge(settings, BARE, tmp_path) as opened:
        readings = opened.judge(versus())
        facts = opened.facts()
        assert opened.judge(versus()) == readings
    assert facts["reading"] == {
        "used": "text", "why": "the end point ignores log-probabilities: text was read",
    }  # fmt: skip
    assert all(reading.preference is None and reading.said for reading in readings)
    assert facts["asked"] == len(readings)
    assert facts["new_tokens"]["input"] > 0
    assert facts["failed_calls"] == {}


def test_log_probabilities_that_are_wanted_are_not_made_up(
    served: tuple[str, str], tmp_path: Path
) -> None:
    url, model = served
    (tmp_path / "ab.toml").write_text(TEMPLATE)
    settings = JudgeSettings(
        model=model, base_url=url, kind="openai", template=str(tmp_path / "ab.toml"),
        reading="logprobs",
    )  # fmt: skip
    with (
        open_judge(settings, BARE, tmp_path) as opened,
        pytest.raises(RequestError, match="gives no log-probabilities"),
    ):
        opened.judge(versus())


def test_a_model_that_it_does_not_have_is_a_sentence(
    served: tuple[str, str], tmp_path: Path
) -> None:
    url, model = served
    settings = JudgeSettings(model=model + "-other", base_url=url, kind="openai", retries=1)
    with open_judge(settings, BARE, tmp_path) as opened, pytest.raises(HarnessError) as error:
        opened.judge(versus())
    print(error.value)
    assert url in str(error.value)
