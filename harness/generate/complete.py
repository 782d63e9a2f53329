"""Completions of a policy for the prompts of some splits: seeded, and stored as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from harness.data.tokens import Ids, TokenRules, cut_prompt
from harness.engine.branches import Sequences
from harness.engine.choice import choose
from harness.engine.engines import Engine
from harness.generate.draws import Draws
from harness.generate.ways import TOKENS, Way, find_way
from harness.records import Completion, Prompt, read_jsonl, write_jsonl
from harness.store.stage import Work
from harness.train import device
from harness.train.policy import check_context, without_dropout
from harness.train.reference import score
from harness.train.resident import RESIDENCE


@dataclass(frozen=True)
class Decoding:
    """How completions are drawn: several per prompt, by sampling (0 is greedy)."""

    samples: int
    temperature: float
    max_tokens: int


class Written(NamedTuple):
    """Completions in the order of their prompts, and the way in which they were made."""

    completions: list[Completion]
    way: Way


def generate(work: Work) -> Mapping[str, Any]:
    """Stage: completions of the reference policy, or of a trained one where the inputs name it.

    With `logprobs` each completion also carries its log-prob under the policy that wrote it and
    under the reference policy, which is what the KL estimate is made of.
    """
    s = work.settings
    device.exactly()
    where = device.device()
    trained = work.inputs.get("trained")
    most = s["max_prompt_tokens"] + s["decoding"]["max_tokens"]
    prompts = [
        prompt
        for prompt in read_jsonl(work.inputs["corpus"] / "prompts.jsonl", Prompt)
        if prompt.split in s["splits"]
    ]
    with (
        RESIDENCE.borrowed(work.inputs["policy"], where) as base,
        device.precision(where, s["precision"]),
    ):
        model = without_dropout(base.trained(trained) if trained else base.shared())
        check_context(model, most)
        completions, way = complete(
            model,
            TokenRules.of(base.tokenizer),
            prompts,
            Decoding(**s["decoding"]),
            seed=s["seed"],
            max_prompt_tokens=s["max_prompt_tokens"],
            report=work.report,
        )
        if s["logprobs"]:
            choice = choose(s["engine"], model, most)
            own = theirs = totals(model, completions, choice.engine)
            if trained:
                del model
                theirs = totals(without_dropout(base.shared()), completions, choice.engine)
            completions = [
                replace(c, logprob=a, reference_logprob=b)
                for c, a, b in zip(completions, own, theirs, strict=True)
            ]
    write_jsonl(work.out / "completions.jsonl", completions)
    return {
        "completions": len(completions),
        "finished": sum(c.finished for c in completions) / len(completions),
        "tokens": sum(len(c.ids) for c in completions),
        "batching": way.said,
        **({"engine": choice.sentence} if s["logprobs"] else {}),
        **device.facts(where),
    }


def totals(model: Any, completions: Sequence[Completion], engine: Engine) -> list[float]:
    """Log-prob of each completion, summed over its tokens, in nats."""
    sequences: Sequences = [(c.prompt_ids, c.ids) for c in completions]
    return [float(row.astype(np.float64).sum()) for row in score(engine, model, sequences)]


@dataclass(frozen=True)
class _Job:
    prompt: Prompt
    ids: Ids
    sample: int


def complete(
    model: Any,
    rules: TokenRules,
    prompts: Sequence[Prompt],
    decoding: Decoding,
    *,
    seed: int,
    max_prompt_tokens: int,
    report: Callable[[int, int, str], None],
    tokens: int | None = None,
) -> Written:
    """Several completions of each prompt, in the order of the prompts.

    The random numbers of a completion are a function of `seed`, its prompt's id and its sample:
    batches change nothing but how sums are rounded.

    Args:
        model: a causal model without dropout, on its device.
        rules: of its tokenizer.
        prompts: with ids that differ.
        decoding: how completions are drawn.
        seed: of all draws.
        max_prompt_tokens: a longer prompt is cut, as for training.
        report: told how many of how many are done.
        tokens: the budget of a batch, with answers at their longest; None: what suits the device.

    Raises:
        DataError: the model cannot be led on token by token.
    """
    jobs = [
        _Job(prompt, ids, sample)
        for prompt in prompts
        for ids in (cut_prompt(rules.prompt_ids(prompt.text), max_prompt_tokens, rules),)
        for sample in range(decoding.samples)
    ]
    way = find_way(model, [job.ids for job in jobs], decoding.max_tokens)
    ends, most = frozenset(stops(model, rules)), decoding.max_tokens
    budget = tokens or TOKENS.get(model.device.type, TOKENS["cpu"])
    found: dict[int, Completion] = {}
    for batch in way.batches([len(job.ids) for job in jobs], most, budget):
        names = [(jobs[row].prompt.prompt_id, jobs[row].sample) for row in batch]
        draws = Draws.of(seed, names, decoding.temperature)
        answers = way.write(model, [jobs[row].ids for row in batch], draws, most, ends)
        for row, ids in zip(batch, answers, strict=True):
            found[row] = _completion(rules, jobs[row], ids, ids[-1] in ends)
        report(len(found), len(jobs), "completions")
    return Written([found[row] for row in range(len(jobs))], way)


def stops(model: Any, rules: TokenRules) -> tuple[int, ...]:
    """The ids that end an answer: the tokenizer's, and those of the model's own contract."""
    declared = getattr(model.generation_config, "eos_token_id", None)
    more = declared if isinstance(declared, list) else [declared]
    return tuple(sorted({rules.eos, *(int(i) for i in more if i is not None)}))


def _completion(rules: TokenRules, job: _Job, ids: Ids, finished: bool) -> Completion:
    return Completion(
        job.prompt.prompt_id, job.sample, job.prompt.text, rules.response_text(job.ids, ids),
        job.ids, ids, finished,
    )  # fmt: skip
