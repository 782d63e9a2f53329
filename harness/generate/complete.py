"""Completions of a policy for the prompts of some splits: seeded, and stored as they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from harness.data.tokens import TokenRules, cut_prompt
from harness.engine.branches import Sequences
from harness.engine.choice import choose
from harness.engine.engines import Engine
from harness.generate.asked import Asked, Policies, Writer
from harness.generate.elsewhere import elsewhere
from harness.generate.own_loop import OwnLoop
from harness.records import Completion, Prompt, read_jsonl, write_jsonl
from harness.store.stage import Work
from harness.train import device
from harness.train.policy import check_context, without_dropout
from harness.train.reference import score
from harness.train.resident import RESIDENCE, Base


@dataclass(frozen=True)
class Decoding:
    """How completions are drawn.

    Attributes:
        samples: of each prompt at each temperature; greedy decoding has one.
        temperatures: 0 is greedy.
        max_tokens: after how many an answer is cut.
    """

    samples: int
    temperatures: Sequence[float]
    max_tokens: int


class Written(NamedTuple):
    """Completions by temperature, in the order of their prompts, and facts for the manifest."""

    completions: list[Completion]
    facts: Mapping[str, Any]


def generate(work: Work) -> Mapping[str, Any]:
    """Stage: completions of the reference policy, or of a trained one where the inputs name it.

    With `logprobs` each completion of temperature 1 also carries its log-prob under the policy that
    wrote it and under the reference policy, which is what the KL estimate is made of.
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
        completions, facts = _written(work, base, model, prompts, most)
        if s["logprobs"]:
            choice = choose(s["engine"], model, most)
            plain = [c for c in completions if c.temperature == 1.0]
            own = theirs = totals(model, plain, choice.engine)
            if trained:
                del model
                theirs = totals(without_dropout(base.shared()), plain, choice.engine)
            found = iter(zip(own, theirs, strict=True))
            completions = [
                c if c.temperature != 1.0 else _with_logprobs(c, *next(found)) for c in completions
            ]
    write_jsonl(work.out / "completions.jsonl", completions)
    return {
        "completions": len(completions),
        "finished": sum(c.finished for c in completions) / len(completions),
        "tokens": sum(len(c.ids) for c in completions),
        **facts,
        **({"engine": choice.sentence} if s["logprobs"] else {}),
        **device.facts(where),
    }


def _written(work: Work, base: Base, model: Any, prompts: Sequence[Prompt], most: int) -> Written:
    s = work.settings
    policies = Policies(model, base, work.inputs["policy"], work.inputs.get("trained"))
    with elsewhere(work, policies, most) as writer:
        return complete(
            model, TokenRules.of(base.tokenizer), prompts, Decoding(**s["decoding"]),
            seed=s["seed"], max_prompt_tokens=s["max_prompt_tokens"], report=work.report,
            writer=writer,
        )  # fmt: skip


def _with_logprobs(completion: Completion, own: float, reference: float) -> Completion:
    return replace(completion, logprob=own, reference_logprob=reference)


def totals(model: Any, completions: Sequence[Completion], engine: Engine) -> list[float]:
    """Log-prob of each completion, summed over its tokens, in nats."""
    sequences: Sequences = [(c.prompt_ids, c.ids) for c in completions]
    return [float(row.astype(np.float64).sum()) for row in score(engine, model, sequences)]


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
    writer: Writer | None = None,
) -> Written:
    """Several completions of each prompt, by temperature, in the order of the prompts.

    The random numbers of a completion are a function of `seed`, its prompt's id and its sample:
    batches change nothing but how sums are rounded, and two temperatures share their noise.

    Args:
        model: a causal model without dropout, on its device.
        rules: of its tokenizer.
        prompts: with ids that differ.
        decoding: how completions are drawn.
        seed: of all draws.
        max_prompt_tokens: a longer prompt is cut, as for training.
        report: told how many of how many are done.
        tokens: the budget of a batch, with answers at their longest; None: what suits the device.
        writer: writes them in the place of our own loop.

    Raises:
        DataError: the model cannot be led on token by token.
    """
    whole = [rules.prompt_ids(prompt.text) for prompt in prompts]
    fed = [cut_prompt(ids, max_prompt_tokens, rules) for ids in whole]
    jobs = [
        (prompt, Asked(prompt.prompt_id, sample, temperature, ids))
        for temperature in decoding.temperatures
        for prompt, ids in zip(prompts, fed, strict=True)
        for sample in range(decoding.samples if temperature else 1)
    ]
    ends = frozenset(stops(model, rules))
    write = writer or OwnLoop(model, seed, tokens)
    told = write([asked for _, asked in jobs], decoding.max_tokens, ends, report)
    found = [
        Completion(
            prompt.prompt_id, asked.sample, prompt.text, rules.response_text(asked.ids, ids),
            asked.ids, ids, ids[-1] in ends, temperature=asked.temperature,
            original=prompt.original,
        )
        for (prompt, asked), ids in zip(jobs, told.answers, strict=True)
    ]  # fmt: skip
    cut = sum(len(ids) > max_prompt_tokens for ids in whole)
    return Written(found, {"prompts_cut": cut, **told.facts})


def stops(model: Any, rules: TokenRules) -> tuple[int, ...]:
    """The ids that end an answer: the tokenizer's, and those of the model's own contract."""
    declared = getattr(model.generation_config, "eos_token_id", None)
    more = declared if isinstance(declared, list) else [declared]
    return tuple(sorted({rules.eos, *(int(i) for i in more if i is not None)}))
