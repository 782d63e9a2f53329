"""Completions of a policy for the prompts of some splits: batched, seeded, stored as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from harness.data.tokens import Ids, TokenRules, cut_prompt
from harness.records import Completion, Prompt, read_jsonl, write_jsonl
from harness.store.stage import Work
from harness.train import device
from harness.train.engine import ENGINES, Sequences
from harness.train.policy import check_context, load_policy, load_trained, without_dropout
from harness.train.reference import score


@dataclass(frozen=True)
class Decoding:
    """How completions are drawn: several per prompt, by sampling (0 is greedy)."""

    samples: int
    temperature: float
    max_tokens: int


BATCH = 512
"""Sequences that are generated together."""


def generate(work: Work) -> Mapping[str, Any]:
    """Stage: completions of the reference policy, or of a trained one where the inputs name it.

    With `logprobs` each completion also carries its log-prob under the policy that wrote it and
    under the reference policy, which is what the KL estimate is made of.
    """
    s = work.settings
    device.exactly()
    where = device.device()
    reference = work.inputs["policy"]
    trained = work.inputs.get("trained")
    model, tokenizer = load_trained(reference, trained) if trained else load_policy(reference)
    check_context(model, s["max_prompt_tokens"] + s["decoding"]["max_tokens"])
    without_dropout(model.to(where))
    rules = TokenRules.of(tokenizer)
    prompts = [
        prompt
        for prompt in read_jsonl(work.inputs["corpus"] / "prompts.jsonl", Prompt)
        if prompt.split in s["splits"]
    ]
    decoding = Decoding(**s["decoding"])
    with device.precision(where, s["precision"]):
        completions = complete(
            model,
            rules,
            prompts,
            decoding,
            seed=s["seed"],
            max_prompt_tokens=s["max_prompt_tokens"],
            report=work.report,
        )
        if s["logprobs"]:
            own = totals(model, completions, s["engine"])
            if trained:
                del model
                model = without_dropout(load_policy(reference)[0].to(where))
                theirs = totals(model, completions, s["engine"])
            else:
                theirs = own
            completions = [
                replace(c, logprob=a, reference_logprob=b)
                for c, a, b in zip(completions, own, theirs, strict=True)
            ]
    write_jsonl(work.out / "completions.jsonl", completions)
    return {
        "completions": len(completions),
        "finished": sum(c.finished for c in completions) / len(completions),
        "tokens": sum(len(c.ids) for c in completions),
        **device.facts(where),
    }


def totals(model: Any, completions: Sequence[Completion], engine: str) -> list[float]:
    """Log-prob of each completion, summed over its tokens, in nats."""
    sequences: Sequences = [(c.prompt_ids, c.ids) for c in completions]
    return [float(row.astype(np.float64).sum()) for row in score(ENGINES[engine], model, sequences)]


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
) -> list[Completion]:
    """Several completions of each prompt, in the order of the prompts.

    Every prompt of a batch has the same number of tokens, so nothing is ever padded.
    """
    jobs = [
        _Job(prompt, cut_prompt(rules.prompt_ids(prompt.text), max_prompt_tokens, rules), sample)
        for prompt in prompts
        for sample in range(decoding.samples)
    ]
    rows = sorted(range(len(jobs)), key=lambda row: (len(jobs[row].ids), row))
    found: dict[int, Completion] = {}
    while rows:
        width = len(jobs[rows[0]].ids)
        batch = [row for row in rows[:BATCH] if len(jobs[row].ids) == width]
        rows = rows[len(batch) :]
        word = np.random.SeedSequence([seed, len(found)]).generate_state(1)[0]
        torch.manual_seed(int(word))
        answers = _answers(model, rules, [jobs[row].ids for row in batch], decoding)
        for row, answer in zip(batch, answers, strict=True):
            found[row] = _completion(rules, jobs[row], answer)
        report(len(found), len(jobs), "completions")
    return [found[row] for row in range(len(jobs))]


def stops(model: Any, rules: TokenRules) -> tuple[int, ...]:
    """The ids that end an answer: the tokenizer's, and those of the model's own contract."""
    declared = getattr(model.generation_config, "eos_token_id", None)
    more = declared if isinstance(declared, list) else [declared]
    return tuple(sorted({rules.eos, *(int(i) for i in more if i is not None)}))


def _answers(
    model: Any, rules: TokenRules, prompts: Sequence[Ids], decoding: Decoding
) -> list[tuple[Ids, bool]]:
    """Ids of each answer, up to and with the id that ended it, and whether one did."""
    ends = stops(model, rules)
    # The model's own decoding defaults are replaced, not amended: KL needs plain samples.
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=decoding.temperature > 0, max_new_tokens=decoding.max_tokens,
        temperature=decoding.temperature or None, top_k=0 if decoding.temperature else None,
        eos_token_id=list(ends), pad_token_id=rules.pad,
    )  # fmt: skip
    model.generation_config = config
    ids = torch.tensor(prompts, device=model.device)
    with torch.no_grad():
        out = model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=config
        )
    answers = []
    for row in out[:, ids.shape[1] :].tolist():
        end = next((i for i, token in enumerate(row) if token in ends), None)
        answers.append((tuple(row if end is None else row[: end + 1]), end is not None))
    return answers


def _completion(rules: TokenRules, job: _Job, answer: tuple[Ids, bool]) -> Completion:
    ids, finished = answer
    return Completion(
        job.prompt.prompt_id, job.sample, job.prompt.text, rules.response_text(job.ids, ids),
        job.ids, ids, finished,
    )  # fmt: skip
