"""A small OpenAI-compatible server on 127.0.0.1 that completes texts with a real, tiny policy.

with completion_server(folder, honours_n=False) as server:
    ... server.url ... server.bodies ...
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from harness.data.tokens import Ids, TokenRules
from harness.train.policy import load_policy, load_trained


@dataclass
class Server:
    """What it can do, and what it was asked.

    Attributes:
        adapters: whether it loads them; `ignores`: whether they get the base's weights.
        faults: the n-th call is answered so: a status, or "garbage", "empty" or "cut".
        bodies: of all calls for completions that were answered.
    """

    folder: Path
    honours_n: bool = True
    takes_ids: bool = True
    gives_ids: bool = True
    gives_logprobs: bool = True
    honours_seed: bool = True
    completes: bool = True
    adapters: bool = True
    ignores: bool = False
    key: str | None = None
    faults: dict[int, int | str] = field(default_factory=dict)
    url: str = ""
    bodies: list[dict[str, Any]] = field(default_factory=list)
    loaded: dict[str, Any] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        model, tokenizer = load_policy(self.folder)
        self.model, self.rules = model.eval(), TokenRules.of(tokenizer)
        self.lock = threading.Lock()

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        """Status and body."""
        with self.lock:
            self.calls[path] += 1
            fault = self.faults.get(self.calls[path]) if path == "/v1/completions" else None
            if isinstance(fault, int):
                return fault, {"error": {"message": "fault"}}
            if fault is not None:
                return 200, fault
            if path == "/v1/load_lora_adapter" and self.adapters:
                policy = load_trained(self.folder, Path(body["lora_path"]))[0]
                self.loaded[body["lora_name"]] = policy.eval()
                return 200, {}
            if path == "/v1/unload_lora_adapter" and self.adapters:
                del self.loaded[body["lora_name"]]
                return 200, {}
            if path == "/v1/completions" and self.completes:
                return self._complete(body)
        return 404, {"detail": "Not Found"}

    def _complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        model = self.loaded.get(body["model"])
        if model is None:
            if body["model"] != "base":
                return 404, {"error": {"message": f"no model {body['model']}"}}
            model = self.model
        model = self.model if self.ignores else model
        if isinstance(body["prompt"], list):
            if not self.takes_ids:
                return 422, {"error": {"message": "prompt must be a text"}}
            prompt = tuple(body["prompt"])
        else:
            prompt = self.rules.prompt_ids(body["prompt"])
        self.bodies.append(body)
        n = body.get("n", 1) if self.honours_n else 1
        return 200, {"choices": [self._choice(model, prompt, body, index) for index in range(n)]}

    def _choice(self, model: Any, prompt: Ids, body: dict[str, Any], index: int) -> dict[str, Any]:
        seed = body["seed"] + index if self.honours_seed else self.calls["/v1/completions"] + index
        ends = body.get("stop_token_ids", [self.rules.eos])
        ids, logprobs = write(model, prompt, body, ends, seed)
        row: dict[str, Any] = {
            "index": index, "text": self.rules.response_text(prompt, ids),
            "finish_reason": "stop" if ids[-1] in ends else "length",
        }  # fmt: skip
        if self.gives_ids and body.get("return_token_ids"):
            row["token_ids"] = list(ids)
        if self.gives_logprobs and "logprobs" in body:
            row["logprobs"] = {"token_logprobs": logprobs}
        return row


def write(
    model: Any, prompt: Ids, body: dict[str, Any], ends: list[int], seed: int
) -> tuple[Ids, list[float]]:
    """An answer, token by token, and the log-probs of its tokens."""
    ids, logprobs, draw = list(prompt), [], torch.Generator().manual_seed(seed)
    while len(ids) < len(prompt) + body["max_tokens"]:
        with torch.no_grad():
            row = model(input_ids=torch.tensor([ids])).logits[0, -1].double()
        if body["temperature"]:
            shares = (row / body["temperature"]).softmax(-1)
            token = int(torch.multinomial(shares, 1, generator=draw))
        else:
            token = int(row.argmax())
        ids.append(token)
        logprobs.append(float(row.log_softmax(-1)[token]))
        if token in ends:
            break
    return tuple(ids[len(prompt) :]), logprobs


@contextmanager
def completion_server(folder: Path, **manners: Any) -> Iterator[Server]:
    """A server until the block ends."""
    server = Server(folder, **manners)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if server.key and self.headers["Authorization"] != f"Bearer {server.key}":
                status, told = 401, {"error": {"message": "wrong key"}}
            else:
                status, told = server.answer(self.path, body)
            if told == "cut":
                self.close_connection = True
                return
            words = {"garbage": b"{", "empty": b'{"choices": []}'}
            data = words[told] if isinstance(told, str) else json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            if status in (429, 503):
                self.send_header("Retry-After", "0.01")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None:
            """Nobody reads it."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
