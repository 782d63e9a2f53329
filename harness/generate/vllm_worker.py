"""What runs in vLLM's own process: reads requests as JSON lines, answers in JSON lines.

It is run by its path, by the interpreter of whichever environment vLLM is installed in: nothing
of the harness is imported here, and the harness learns nothing of that environment but what it
says in its answers. `vllm_engine` is the other end.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Iterator
from importlib import import_module
from typing import Any

CHUNK = 1024
"""Requests between two words about how far the work is: enough that the last ones, which leave
the machine half idle, are few."""

STEP_TOKENS = 8192
"""Of all prompts that are read at once: enough to keep a GPU busy."""

MARGIN = 1 << 30
"""Bytes of a GPU that are left alone: what the other process's libraries take when they begin."""

CPU_SHARE = 0.2
"""Of a CPU's memory: there vLLM refuses to start where more is asked for than is free."""


class Engine:
    """A model in vLLM."""

    def __init__(self, asked: dict[str, Any]) -> None:
        # By name, for it is found in another environment than the one that checks this file.
        self._vllm = import_module("vllm")
        self._lora = import_module("vllm.lora.request")
        cpu = bool(import_module("vllm.platforms").current_platform.is_cpu())
        self._sleeps = not cpu
        self.share = CPU_SHARE if cpu else _share(float(asked["memory"]))
        options: dict[str, Any] = {
            "model": asked["model"],
            "dtype": asked["dtype"],
            "max_model_len": asked["longest"],
            "gpu_memory_utilization": self.share,
            "skip_tokenizer_init": True,  # ids go in and come out
            # A prompt that is read in two steps draws from its seed once too often.
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(STEP_TOKENS, asked["longest"]),
            "generation_config": "vllm",  # the model's own decoding defaults must not leak in
            "enforce_eager": cpu,
            "enable_sleep_mode": self._sleeps,
            "disable_log_stats": True,
            "seed": 0,
        }
        if asked["lora_rank"]:
            options |= {
                "enable_lora": True,
                "max_loras": asked["lora_slots"],
                "max_cpu_loras": asked["lora_slots"],
                "max_lora_rank": asked["lora_rank"],
            }
        self._llm = self._vllm.LLM(**options)
        self._adapters: dict[str, Any] = {}
        self._adapters_seen = 0

    def write(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Answers to requests, in their order and in chunks."""
        requests = asked["requests"]
        self._forget({request["adapter"] for request in requests})
        for start in range(0, len(requests), CHUNK):
            some = requests[start : start + CHUNK]
            outputs = self._llm.generate(
                [{"prompt_token_ids": request["ids"]} for request in some],
                [self._sampling(request, asked) for request in some],
                lora_request=[self._adapter(request["adapter"]) for request in some],
                use_tqdm=False,
            )
            yield {"answers": [_answer(output.outputs[0]) for output in outputs]}
        yield {"done": True}

    def rest(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Gives the GPU's memory back until `wake`."""
        if self._sleeps:
            self._llm.sleep(level=1)
        yield {"done": True}

    def wake(self, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Takes the memory again."""
        if self._sleeps:
            self._llm.wake_up()
        yield {"done": True}

    def _sampling(self, request: dict[str, Any], asked: dict[str, Any]) -> Any:
        return self._vllm.SamplingParams(
            temperature=request["temperature"],
            seed=request["seed"],
            max_tokens=asked["most"],
            # All ids that end an answer are named, and no other one does.
            ignore_eos=True,
            stop_token_ids=asked["ends"],
            detokenize=False,
            logprobs=0 if asked["logprobs"] else None,
        )

    def _forget(self, wanted: set[str | None]) -> None:
        """What was asked before has no part in what is asked now.

        Adapters leave before others come, so that these take the same slots, and the last slot
        never holds one: what has left it is not wiped out.
        """
        self._llm.reset_prefix_cache()
        for folder in self._adapters.keys() - wanted:
            self._llm.llm_engine.remove_lora(self._adapters.pop(folder).lora_int_id)

    def _adapter(self, folder: str | None) -> Any:
        if folder is None:
            return None
        if folder not in self._adapters:
            self._adapters_seen += 1
            number = self._adapters_seen
            self._adapters[folder] = self._lora.LoRARequest(f"adapter-{number}", number, folder)
        return self._adapters[folder]


def _answer(output: Any) -> dict[str, Any]:
    ids = [int(token) for token in output.token_ids]
    if output.logprobs is None:
        return {"ids": ids}
    rows = zip(ids, output.logprobs, strict=True)
    return {"ids": ids, "logprobs": [float(row[token].logprob) for token, row in rows]}


def _share(wanted: float) -> float:
    """The share of a GPU that vLLM may take: no more than is free, or it would not start."""
    free, total = import_module("torch").cuda.mem_get_info()
    return float(round(min(wanted, max(0.01, (free - MARGIN) / total)), 4))


def _versions() -> dict[str, str]:
    return {name: str(import_module(name).__version__) for name in ("vllm", "torch")}


def _lines() -> queue.Queue[str]:
    """Requests as they come. Where nobody is left who could send one, this process ends at once.

    Whoever started it may have been killed: the end of its pipe is all that tells.
    """
    lines: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            lines.put(line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return lines


def _own_output() -> Any:
    """The pipe that answers go through; whatever else is printed goes to the log."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


def main() -> None:
    """Serve until the other end closes its pipe."""
    # This file's folder is the first on the path, and no module in it is meant for anybody here.
    sys.path[:] = [p for p in sys.path if p != os.path.dirname(os.path.abspath(__file__))]
    answers, lines = _own_output(), _lines()

    def say(message: dict[str, Any]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    engine = Engine(json.loads(lines.get()))
    say({"ready": _versions(), "memory_share": engine.share})
    while True:
        asked = json.loads(lines.get())
        for message in getattr(engine, asked["do"])(asked):
            say(message)


if __name__ == "__main__":
    main()
