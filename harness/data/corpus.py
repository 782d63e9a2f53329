"""A task's texts, prompts and labelled pairs, written down before any model sees them."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from harness.contracts.task import Answers, Corpus, Sizes
from harness.data.tokens import Limits, TokenRules, cut_prompt
from harness.errors import DataError
from harness.records import Completion, Pair, Prompt, read_jsonl, write_jsonl
from harness.registry import load_task
from harness.store.stage import Work


def make_corpus(work: Work) -> Mapping[str, Any]:
    """Stage: texts for the warm start and prompts in disjoint splits.

    Raises:
        DataError: a split is empty, or a prompt occurs in two splits.
    """
    s = work.settings
    task = load_task(s["task"]).build(**s["task_settings"])
    corpus = task.corpus(Sizes(**s["sizes"]), np.random.default_rng(s["seed"]))
    counts = _checked(corpus)
    write_jsonl(work.out / "prompts.jsonl", corpus.prompts)
    with (work.out / "texts.jsonl").open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(text, ensure_ascii=False) + "\n" for text in corpus.texts)
    return {"texts": len(corpus.texts), "prompts": counts, **corpus.facts}


def _checked(corpus: Corpus) -> dict[str, int]:
    splits: dict[str, set[str]] = defaultdict(set)
    ids = [prompt.prompt_id for prompt in corpus.prompts]
    if len(set(ids)) != len(ids):
        raise DataError("a prompt_id occurs twice")
    for prompt in corpus.prompts:
        splits[prompt.split].add(prompt.text)
    for one, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        if not splits[one] or not splits[other]:
            raise DataError(f"the task gave no prompts for {other if splits[one] else one}")
        if shared := splits[one] & splits[other]:
            raise DataError(f"{len(shared)} prompts are in {one} and in {other}: {min(shared)!r}")
    return {split: sum(p.split == split for p in corpus.prompts) for split in splits}


def make_pairs(work: Work) -> Mapping[str, Any]:
    """Stage: labelled pairs of one variant of a task, from prompts, samples and originals."""
    s = work.settings
    task = load_task(s["task"]).build(**s["task_settings"])
    prompts = [
        prompt
        for prompt in read_jsonl(work.inputs["corpus"] / "prompts.jsonl", Prompt)
        if prompt.split != "test"
    ]
    rules = TokenRules.of(AutoTokenizer.from_pretrained(work.inputs["policy"]))
    sampled = work.inputs.get("samples")
    found = read_jsonl(sampled / "completions.jsonl", Completion) if sampled else []
    samples = _by_prompt(found)
    limits = Limits(**s["limits"])
    answers = {
        p.prompt_id: Answers(samples.get(p.prompt_id, []), _original(p, rules, limits))
        for p in prompts
    }
    pairs = task.pairs(s["variant"], prompts, answers, np.random.default_rng(s["seed"]))
    write_jsonl(work.out / "pairs.jsonl", pairs)
    originals = [a.original for a in answers.values() if a.original]
    facts = {**_described(pairs), "originals_cut": sum(not o.finished for o in originals)}
    if task.parses is not None and found:
        texts = [c.prompt + c.text for some in samples.values() for c in some]
        facts["samples_that_parse"] = sum(map(task.parses, texts)) / len(texts)
    return facts


def _original(prompt: Prompt, rules: TokenRules, limits: Limits) -> Completion | None:
    """What followed a prompt in the data, as training will see it."""
    if not prompt.original:
        return None
    prompt_ids = cut_prompt(rules.prompt_ids(prompt.text), limits.prompt_tokens, rules)
    ids = rules.response_ids(prompt.original)
    most = limits.response_tokens
    if len(ids) <= most or limits.overlong == "drop":
        return Completion(prompt.prompt_id, 0, prompt.text, prompt.original, prompt_ids, ids, True)
    text = rules.response_text(rules.prompt_ids(prompt.text), ids[:most])
    return Completion(prompt.prompt_id, 0, prompt.text, text, prompt_ids, ids[:most], False)


def _by_prompt(completions: Sequence[Completion]) -> Mapping[str, list[Completion]]:
    found: dict[str, list[Completion]] = defaultdict(list)
    for completion in completions:
        found[completion.prompt_id].append(completion)
    return found


def _described(pairs: Sequence[Pair]) -> dict[str, Any]:
    gaps = [
        pair.chosen_reward - pair.rejected_reward
        for pair in pairs
        if pair.chosen_reward is not None and pair.rejected_reward is not None
    ]
    if not gaps:
        return {"pairs": len(pairs)}
    return {
        "pairs": len(pairs),
        "reward_gap": {"mean": float(np.mean(gaps)), "mean_absolute": float(np.mean(np.abs(gaps)))},
        "label_agrees_with_reward": float(np.mean([(gap > 0) + 0.5 * (gap == 0) for gap in gaps])),
        "equal_rewards": float(np.mean([gap == 0 for gap in gaps])),
    }
