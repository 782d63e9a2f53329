"""Completions that another process or machine writes: what it is asked, and how it is trusted."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from harness.backends import GenerationSettings
from harness.data.tokens import Ids, TokenRules
from harness.errors import DataError, GateError
from harness.generate.asked import Asked, Policies, Progress, Told, Writer, draw_seed
from harness.generate.selfcheck import TOKENS, Tried, compare, samples
from harness.generate.vllm_engine import Engine
from harness.generate.vllm_resident import ENGINES
from harness.generate.vllm_setup import Request, Setup
from harness.store.stage import Work

_DTYPES = {"fp32": "float32", "bf16": "bfloat16"}


@contextmanager
def elsewhere(work: Work, policies: Policies, longest: int) -> Iterator[Writer | None]:
    """Who writes this stage's completions; None: this process.

    Raises:
        RequestError: it cannot serve this policy.
        HarnessError: it could not start, or failed.
        GateError: what it has is another model.
    """
    backend = work.settings.get("backend", {"name": "transformers"})
    if backend["name"] == "vllm":
        with ENGINES.borrowed(_setup(work, policies, longest)) as engine:
            yield VllmWriter(engine, policies, work.settings["seed"], work.settings["precision"])
    elif backend["name"] == "openai":
        from harness.generate.served import served  # its client takes a second to load

        rules = TokenRules.of(policies.base.tokenizer)
        with served(work, policies, rules) as writer:
            yield writer
    else:
        assert backend["name"] == "transformers", f"no backend has the name {backend['name']!r}"
        yield None


@dataclass(frozen=True)
class VllmWriter:
    """Writes with an engine of vLLM, after its greedy answers were seen to be this policy's."""

    engine: Engine
    policies: Policies
    seed: int
    precision: str

    def __call__(
        self, asked: Sequence[Asked], most: int, ends: Collection[int], report: Progress
    ) -> Told:
        """An answer to each that is asked, in their order.

        Raises:
            GateError: what vLLM has is another model.
            HarnessError: it failed.
        """
        agreement = self._checked(samples([one.ids for one in asked]), min(most, TOKENS), ends)
        requests = [
            Request(
                one.ids, one.temperature, draw_seed(self.seed, one.prompt_id, one.sample),
                self.policies.adapter,
            )
            for one in asked
        ]  # fmt: skip
        answers = self.engine.write(
            requests, most, ends, report=lambda done: report(done, len(asked), "completions")
        )
        share = self.engine.memory_share
        facts = {
            "backend": {"name": "vllm", **self.engine.versions, "memory_share": share},
            "batching": "vLLM's own", "agreement": agreement,
        }  # fmt: skip
        return Told([answer.ids for answer in answers], facts)

    def _checked(self, prompts: Sequence[Ids], most: int, ends: Collection[int]) -> str:
        greedy = [Request(ids, adapter=self.policies.adapter) for ids in prompts]
        answers = self.engine.write(greedy, most, ends, logprobs=True)
        tried = [Tried(prompt, *answer) for prompt, answer in zip(prompts, answers, strict=True)]
        found = compare(tried, self.policies.model, self.policies.unadapted())
        if trouble := found.trouble(self.precision):
            raise GateError(
                f"vLLM {self.engine.versions['vllm']} {trouble}: what it writes is not of this "
                "policy. Use another version of it, or generation.backend = transformers"
            )
        return found.sentence


def _setup(work: Work, policies: Policies, longest: int) -> Setup:
    s, adapter = work.settings, policies.adapter
    rank = int(s["backend"]["lora_rank"])
    if adapter is not None and (own := adapter_rank(adapter)) > rank:
        raise DataError(f"{adapter} has rank {own}, and the experiment's is {rank}: train it again")
    whole = policies.trained if policies.trained is not None and adapter is None else None
    return Setup(
        whole or policies.folder, _DTYPES[s["precision"]], longest, rank,
        work.means.get("python"), work.means.get("memory", GenerationSettings.memory),
    )  # fmt: skip


def adapter_rank(adapter: Path) -> int:
    """The rank that its own configuration names."""
    config = json.loads((adapter / "adapter_config.json").read_text(encoding="utf-8"))
    return int(config["r"])
