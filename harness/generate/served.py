"""Completions by an OpenAI-compatible server that has the reference policy."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

from filelock import FileLock

from harness.backends import GenerationSettings
from harness.data.tokens import Ids, TokenRules
from harness.errors import HarnessError, RequestError
from harness.generate.arrived import Arrived
from harness.generate.asked import Asked, Policies, Progress, Told
from harness.generate.end_point import Choice, EndPoint, connect
from harness.generate.manners import Ask, Manner, find_manner
from harness.generate.selfcheck import TOKENS, compare, samples
from harness.store.stage import Work


@contextmanager
def served(work: Work, policies: Policies, rules: TokenRules) -> Iterator[ServedWriter]:
    """A writer by the server that the settings name; adapters are loaded there and unloaded.

    Raises:
        RequestError: it cannot serve this policy.
    """
    s, adapter = work.settings, policies.adapter
    if policies.trained is not None and adapter is None:
        raise RequestError(
            "generation.backend = openai serves the reference policy and adapters on it, and this "
            "cell trained a whole model: set budget.lora.rank, or another generation.backend"
        )
    url, model = s["backend"]["base_url"], s["backend"]["model"]
    with in_turn(work.shared, url), connect(url, model) as base:
        point, name = base, "" if adapter is None else f"{adapter.parent.name}-{adapter.name}"
        if adapter is not None:
            point = base.with_adapter(name, adapter.resolve())
        try:
            yield ServedWriter(
                point=point, policies=policies, rules=rules, seed=s["seed"],
                precision=s["precision"], arrived=Arrived.of(work.scratch / "served.jsonl"),
                at_once=int(work.means.get("concurrency", GenerationSettings.concurrency)),
            )  # fmt: skip
        finally:
            if adapter is not None:
                with suppress(HarnessError):  # it has room for others: nothing hangs on it
                    base.without_adapter(name)


@contextmanager
def in_turn(shared: Path | None, url: str) -> Iterator[None]:
    """One stage at a time asks a server, whichever process it is in.

    Where vLLM 0.32 batches a request to the base with one to an adapter, the base may get an
    adapter's weights: once as many adapters have come as there are slots, for none is ever empty
    again. Batches of one kind are right.
    """
    if shared is None:
        yield
        return
    shared.mkdir(parents=True, exist_ok=True)
    name = hashlib.sha256(url.encode()).hexdigest()[:16]
    with FileLock(shared / f"server-{name}.lock"):
        yield


@dataclass(frozen=True)
class ServedWriter:
    """Writes by a server, after its greedy answers were seen to be this policy's.

    Attributes:
        point: the policy there.
        arrived: what came before this process was killed, if it was.
        at_once: calls.
    """

    point: EndPoint
    policies: Policies
    rules: TokenRules
    seed: int
    precision: str
    arrived: Arrived
    at_once: int

    def __call__(
        self, asked: Sequence[Asked], most: int, ends: Collection[int], report: Progress
    ) -> Told:
        """An answer to each that is asked, in their order.

        Raises:
            HarnessError: the server has another model, or does not answer.
        """
        ask = Ask(self.rules, self.seed, most, tuple(sorted(ends)))
        manner, said = find_manner(self.point, ask, asked)
        said = [self._checked(ask, manner, samples([one.ids for one in asked])), *said]
        groups = [tuple(g) for _, g in groupby(asked, lambda one: (one.prompt_id, one.temperature))]
        choices: dict[int, list[Choice]] = {}
        pool = ThreadPoolExecutor(self.at_once)
        try:
            jobs = {pool.submit(self._group, ask, manner, g): i for i, g in enumerate(groups)}
            for job in as_completed(jobs):
                choices[jobs[job]] = job.result()
                report(sum(map(len, choices.values())), len(asked), "completions")
        finally:
            pool.shutdown(cancel_futures=True)
        flat = [choice for i in range(len(groups)) for choice in choices[i]]
        found = [ask.ids(one, choice) for one, choice in zip(asked, flat, strict=True)]
        facts = {
            "backend": {"name": "openai", "model": self.point.model}, "end_point": said,
            "batching": f"the server's own, {self.at_once} calls at once",
            "tokenised_otherwise": sum(not same for _, same in found),
        }  # fmt: skip
        return Told([ids for ids, _ in found], facts)

    def _group(self, ask: Ask, manner: Manner, group: Sequence[Asked]) -> list[Choice]:
        """Answers to one prompt at one temperature; what does not come at once is asked for."""
        if (kept := self.arrived.get(group)) is not None:
            return kept
        n = len(group) if manner.many else 1
        found = self.point.complete(ask.body(manner, group[0], n=n))[: len(group)]
        for one in group[len(found) :]:
            found += self.point.complete(ask.body(manner, one))[:1]
        self.arrived.keep(group, found)
        return found

    def _checked(self, ask: Ask, manner: Manner, prompts: Sequence[Ids]) -> str:
        short = replace(ask, most=min(ask.most, TOKENS))
        pairs = []
        for one in (Asked("", 0, 0.0, ids) for ids in prompts):
            choice = self.point.complete(short.body(manner, one, logprobs=True))[0]
            pairs.append(short.tried(one, choice))
        if not (tried := [one for one in pairs if one is not None]):
            return "its answers could not be compared: their tokens are not known"
        found = compare(tried, self.policies.model, self.policies.unadapted())
        if trouble := found.trouble(self.precision):
            raise HarnessError(
                f"'{self.point.model}' at {self.point.client.base_url} {trouble}: it is not this "
                f"policy. Serve the folder {self.policies.folder} in {self.precision}"
            )
        return found.sentence
