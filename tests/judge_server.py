"""A small OpenAI-compatible end point on 127.0.0.1 that judges by a rule and fails on demand.

    with judge_server(faults={"429": 0.1, "cut": 0.1}) as server:
        ... server.url ... server.calls ...

`python -m tests.judge_server --latency 0.1` is the same in a process of its own: it prints its URL
and ends with its standard input.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import random
import re
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from time import time
from typing import Any

Rule = Callable[[str, str, str], float]
"""(prompt, first, second) to the preference for the first answer, 0 to 1."""

FAULTS = (
    "429", "429-date", "500", "408", "timeout", "cut", "malformed", "empty", "no-logprobs",
    "wrong-token", "slow",
)  # fmt: skip
"""What can go wrong with a call and may go right the next time."""

BLOCK = re.compile(r"\[begin ([0-9a-f]+): ([^\]\n]*)\]\n(.*?)\n\[end \1\]", re.DOTALL)
GRADES = ((0.9, "[[A>>B]]"), (0.6, "[[A>B]]"), (0.4, "[[A=B]]"), (0.1, "[[B>A]]"))


def longer_wins(prompt: str, first: str, second: str) -> float:
    """The longer answer is better, and whatever is shown first a little better than it is."""
    return 1 / (1 + math.exp(-(len(first) - len(second)) / 10 - 0.3))


@dataclass
class JudgeServer:
    """What the end point does and what has happened to it.

    Attributes:
        faults: the probability of each kind of fault, drawn for a content and its n-th call.
        script: instead of `faults`: (content, n-th call of it, from 0) to a fault or None.
        status: every call is answered with this status.
        refusals: parameters of a request that are answered with 400, by the message.
        refuse: content to the message of a 400; None where it is answered.
        refuse_code: the code that comes with it.
        body: what an answer's JSON is turned into, as text.
        calls: by the content of the last message; so are `answered`, those that were answered well.
        bodies: the last request.
    """

    rule: Rule = longer_wins
    faults: Mapping[str, float] = field(default_factory=dict)
    script: Callable[[str, int], str | None] | None = None
    latency: float = 0.0
    logprobs: bool = True
    key: str | None = None
    model: str | None = None
    status: int | None = None
    refusals: Mapping[str, str] = field(default_factory=dict)
    refuse: Callable[[str], str | None] = lambda content: None
    refuse_code: Any = None
    body: Callable[[str], str] | None = None
    nonsense: bool = False
    retry_after: float = 0.05
    slow: float = 30.0
    seed: int = 0
    url: str = ""
    calls: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    injected: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0
    bodies: list[dict[str, Any]] = field(default_factory=list)
    _now: int = 0

    def fault(self, content: str, call: int) -> str | None:
        if self.script is not None:
            return self.script(content, call)
        draw = random.Random(f"{self.seed} {call} {content}").random()
        for name, share in self.faults.items():
            draw -= share
            if draw < 0:
                return name
        return None

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """All requests of one connection."""
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        except asyncio.CancelledError:  # the server ends while a connection is open
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        length = re.search(r"^content-length: *(\d+)", head, re.IGNORECASE | re.MULTILINE)
        body = await reader.readexactly(int(length[1]) if length else 0)
        self._now += 1
        self.most_at_once = max(self.most_at_once, self._now)
        try:
            return await self._reply(head, body, writer)
        finally:
            self._now -= 1

    async def _reply(self, head: str, body: bytes, writer: asyncio.StreamWriter) -> bool:
        request = json.loads(body)
        self.bodies[:] = [request]
        content = request["messages"][-1]["content"]
        call = self.calls[content]
        self.calls[content] += 1
        if self.latency:
            await asyncio.sleep(self.latency)
        if refused := self._refused(head, request):
            await _send(writer, *refused)
            return True
        fault = self.fault(content, call)
        if fault is not None:
            self.injected[fault] += 1
        if fault in _TRANSPORT:
            answer = self._answer(request, content, None)
            return bool(await _TRANSPORT[fault](self, writer, answer))
        self.answered[content] += fault is None
        answer = self._answer(request, content, fault)
        if self.body is not None:
            answer = self.body(json.dumps(answer)).encode()
        await _send(writer, 200, answer)
        return True

    def _refused(self, head: str, request: Mapping[str, Any]) -> tuple[int, dict[str, Any]] | None:
        if self.status is not None:
            return self.status, _error(f"always {self.status}")
        given = re.search(r"^authorization: *Bearer (.*?)\r?$", head, re.IGNORECASE | re.MULTILINE)
        if self.key is not None and (not given or given[1] != self.key):
            # As some end points do, the wrong key is repeated in the message.
            return 401, _error(f"Incorrect API key provided: {given[1] if given else ''}")
        if self.model is not None and request["model"] != self.model:
            return 404, _error(f"The model `{request['model']}` does not exist")
        if refusal := self.refuse(request["messages"][-1]["content"]):
            return 400, _error(refusal, self.refuse_code)
        for parameter, message in self.refusals.items():
            if parameter in request:
                return 400, _error(message)
        return None

    def _answer(self, request: Mapping[str, Any], content: str, fault: str | None) -> Any:
        if fault == "empty":
            return {"id": "x", "object": "chat.completion", "choices": [], "usage": None}
        text, top = self._verdict(content)
        if fault == "wrong-token" or self.nonsense:
            text, top = "I", [("I", -0.1), ("The", -3.0)]
        logprobs = None
        if self.logprobs and request.get("logprobs") and fault != "no-logprobs":
            tops = [{"token": t, "logprob": lp, "bytes": None} for t, lp in top]
            logprobs = {"content": [{**tops[0], "top_logprobs": tops}]}
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "stop", "logprobs": logprobs}
        usage = {"prompt_tokens": len(content) // 4 + 1, "completion_tokens": 1}
        return {"id": "x", "object": "chat.completion", "choices": [choice], "usage": usage}

    def _verdict(self, content: str) -> tuple[str, list[tuple[str, float]]]:
        blocks = BLOCK.findall(content)
        if len(blocks) != 3:
            return "I", [("I", -0.1), ("am", -2.5)]
        (_, _, prompt), (_, name, first), (_, other, second) = blocks
        preference = self.rule(prompt, first, second)
        if "[[A>>B]]" in content:
            grade = next((g for least, g in GRADES if preference > least), "[[B>>A]]")
            return f"The answers differ.\nMy verdict: {grade}", [("The", -0.1)]
        labels = name.split()[-1], other.split()[-1]
        logs = math.log(preference or 1e-30), math.log(1 - preference or 1e-30)
        top = [*zip(labels, logs, strict=True), ("Both", -9.0)]
        return labels[preference < 0.5], sorted(top, key=lambda pair: -pair[1])


def _error(message: str, code: Any = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "error", "code": code}}


async def _send(
    writer: asyncio.StreamWriter, status: int, payload: Any, *headers: str, pause: float = 0
) -> None:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    lines = (f"HTTP/1.1 {status} x", "Content-Type: application/json", *headers)
    head = "\r\n".join((*lines, f"Content-Length: {len(body)}", "", "")).encode()
    if not pause:
        writer.write(head + body)
        await writer.drain()
        return
    for byte in (head + body)[:-1]:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(pause)
    writer.write((head + body)[-1:])


async def _busy(server: JudgeServer, writer: asyncio.StreamWriter, answer: Any) -> bool:
    await _send(writer, 429, _error("slow down"), f"Retry-After: {server.retry_after}")
    return True


async def _busy_until(server: JudgeServer, writer: asyncio.StreamWriter, answer: Any) -> bool:
    when = formatdate(time() + server.retry_after, usegmt=True)
    await _send(writer, 429, _error("slow down"), f"Retry-After: {when}")
    return True


async def _broken(server: JudgeServer, writer: asyncio.StreamWriter, answer: Any) -> bool:
    await _send(writer, 500, b"<html>Internal Server Error</html>")
    return True


async def _late(server: JudgeServer, writer: asyncio.StreamWriter, answer: Any) -> bool:
    await _send(writer, 408, _error("too late"))
    return True


async def _silent(server: JudgeServer, writer: asyncio.StreamWriter, answer: Any) -> bool:
    await asyncio.sleep(server.slow)
    return False


async def _cut(server: JudgeServer, writer: asyncio.StreamWriter, answer: Any) -> bool:
    body = json.dumps(answer).encode()
    head = f"HTTP/1.1 200 x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
    writer.write(f"{head}\r\n\r\n".encode() + body[: len(body) // 2])
    await writer.drain()
    return False


async def _malformed(server: JudgeServer, writer: asyncio.StreamWriter, answer: Any) -> bool:
    await _send(writer, 200, json.dumps(answer).encode()[:-3])
    return True


async def _slow(server: JudgeServer, writer: asyncio.StreamWriter, answer: Any) -> bool:
    body = json.dumps(answer)
    await _send(writer, 200, body.encode(), pause=server.slow / len(body))
    return True


_TRANSPORT: dict[str | None, Callable[..., Any]] = {
    "429": _busy, "429-date": _busy_until, "500": _broken, "408": _late, "timeout": _silent,
    "cut": _cut, "malformed": _malformed, "slow": _slow,
}  # fmt: skip


@contextlib.contextmanager
def judge_server(**settings: Any) -> Iterator[JudgeServer]:
    """An end point in a thread of its own; ends, with all its connections, when the block does."""
    server, loop, started = JudgeServer(**settings), asyncio.new_event_loop(), threading.Event()
    stop = asyncio.Event()

    async def run() -> None:
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=512)
        server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}/v1"
        started.set()
        await stop.wait()
        listening.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    assert started.wait(10), "the server did not start"
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--latency", type=float, default=0.0)
    parser.add_argument("--no-logprobs", action="store_true")
    args = parser.parse_args()
    with judge_server(latency=args.latency, logprobs=not args.no_logprobs) as server:
        print(server.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
