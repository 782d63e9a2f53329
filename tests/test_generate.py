"""Completions are honest samples of the policy, and carry the log-probs that a KL is made of."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor
from transformers import AutoTokenizer

from harness.contracts.task import SmallModel
from harness.data.tokens import Limits, TokenRules, tokenise
from harness.engine.engines import oracle, padded
from harness.errors import DataError
from harness.generate.complete import Decoding, complete, generate, stops, totals
from harness.judge.metrics import COMMON, common, distinct
from harness.judge.score import score as score_stage
from harness.records import Completion, Pair, Prompt, read_jsonl
from harness.registry import load_task
from harness.train.cell import train_cell
from harness.train.policy import adapt, build_small, load_policy, load_trained, save_policy

from .models import SHAPE, WORDS, World, bigrams, make_world

pytestmark = pytest.mark.filterwarnings(
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
)

SETTINGS = {
    "splits": ["test"], "seed": 7,
    "decoding": {"samples": 3, "temperatures": [1.0], "max_tokens": 8}, "logprobs": True,
    "max_prompt_tokens": 16, "precision": "fp32", "engine": "shared",
}  # fmt: skip
CELL = {
    "engine": "padded", "method": "simpo", "method_settings": {}, "seed": 0, "epochs": 1,
    "pairs_per_step": 16, "micro_pairs": 16, "checkpoint_steps": 100, "precision": "fp32",
    "lora": None, "reward_epochs": 1, "optimisation": {"learning_rate": 1e-2, "warmup": 0.0},
}  # fmt: skip
LORA = {"rank": 4, "alpha": 16.0, "targets": "all-linear"}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def policy(world: World) -> tuple[Any, TokenRules]:
    model, tokenizer = load_policy(world.inputs["policy"])
    return model.eval(), TokenRules.of(tokenizer)


def prompts(*texts: str) -> list[Prompt]:
    return [Prompt(f"p{row}", "test", text) for row, text in enumerate(texts)]


def draw(
    policy: tuple[Any, TokenRules],
    texts: Sequence[str],
    *,
    samples: int = 4,
    temperature: float = 1.0,
    max_tokens: int = 8,
    seed: int = 0,
    max_prompt_tokens: int = 16,
    tokens: int | None = None,
) -> list[Completion]:
    model, rules = policy
    return complete(
        model, rules, prompts(*texts), Decoding(samples, (temperature,), max_tokens), seed=seed,
        max_prompt_tokens=max_prompt_tokens, report=lambda *_: None, tokens=tokens,
    ).completions  # fmt: skip


TEXTS = ("the film", "the cast and the plot", "good", "", "the film and the cast and")


def test_a_seed_gives_one_set_of_completions_and_another_seed_another(
    policy: tuple[Any, TokenRules],
) -> None:
    assert draw(policy, TEXTS, seed=1) == draw(policy, TEXTS, seed=1)
    assert draw(policy, TEXTS, seed=1) != draw(policy, TEXTS, seed=2)
    several = draw(policy, ["the film"], samples=20)
    assert len({c.ids for c in several}) > 10


def test_every_prompt_gets_its_own_completions_in_its_own_order(
    policy: tuple[Any, TokenRules],
) -> None:
    rules = policy[1]
    found = draw(policy, TEXTS)
    assert [(c.prompt_id, c.sample) for c in found] == [
        (f"p{row}", sample) for row in range(len(TEXTS)) for sample in range(4)
    ]
    for completion in found:
        text = TEXTS[int(completion.prompt_id[1:])]
        assert completion.prompt == text
        assert completion.prompt_ids == rules.prompt_ids(text)


def test_a_small_batch_is_as_good_as_a_large_one(
    policy: tuple[Any, TokenRules],
) -> None:
    for temperature in (0.0, 1.0):
        whole = draw(policy, TEXTS, temperature=temperature)
        for tokens in (1, 40, 100):
            assert draw(policy, TEXTS, temperature=temperature, tokens=tokens) == whole
    sampled = draw(policy, ["the film"] * 2, samples=6)
    assert len({c.ids for c in sampled}) > 6  # no batch repeats the one before it


def test_what_else_is_asked_changes_no_completion(policy: tuple[Any, TokenRules]) -> None:
    whole = {(c.prompt_id, c.sample): c.ids for c in draw(policy, TEXTS)}
    for few in (TEXTS[:1], TEXTS[:3]):
        for completion in draw(policy, few, samples=2):
            assert completion.ids == whole[completion.prompt_id, completion.sample]


def test_a_sweep_draws_each_temperature_as_if_it_were_alone(
    policy: tuple[Any, TokenRules],
) -> None:
    model, rules = policy
    swept = complete(
        model, rules, prompts(*TEXTS), Decoding(3, (0.0, 0.5, 1.0), 8), seed=4,
        max_prompt_tokens=16, report=lambda *_: None,
    ).completions  # fmt: skip
    alone = [c for t in (0.0, 0.5, 1.0) for c in draw(policy, TEXTS, samples=3 if t else 1,
                                                      temperature=t, seed=4)]  # fmt: skip
    assert swept == alone
    assert [c.temperature for c in swept] == [0.0] * 5 + [0.5] * 15 + [1.0] * 15


def test_prompts_that_are_cut_are_counted(policy: tuple[Any, TokenRules]) -> None:
    model, rules = policy
    for most in (3, 16):
        facts = complete(
            model, rules, prompts(*TEXTS), Decoding(1, (0.0,), 2), seed=0,
            max_prompt_tokens=most, report=lambda *_: None,
        ).facts  # fmt: skip
        assert facts["prompts_cut"] == sum(len(rules.prompt_ids(t)) > most for t in TEXTS)
    assert any(len(rules.prompt_ids(t)) > 3 for t in TEXTS)


def test_greedy_decoding_has_one_sample(policy: tuple[Any, TokenRules]) -> None:
    assert [c.sample for c in draw(policy, TEXTS, samples=4, temperature=0.0)] == [0] * 5


def test_a_completion_carries_what_followed_in_the_data(policy: tuple[Any, TokenRules]) -> None:
    model, rules = policy
    asked = [Prompt("p", "test", "the film", " is good")]
    (found,) = complete(
        model, rules, asked, Decoding(1, (1.0,), 4), seed=0, max_prompt_tokens=16,
        report=lambda *_: None,
    ).completions  # fmt: skip
    assert found.original == " is good"


def test_the_progress_comes_to_its_end(policy: tuple[Any, TokenRules]) -> None:
    seen: list[tuple[int, int]] = []
    model, rules = policy
    complete(
        model, rules, prompts(*TEXTS), Decoding(2, (1.0,), 2), seed=0, max_prompt_tokens=16,
        report=lambda done, of, _: seen.append((done, of)),
    )  # fmt: skip
    assert seen == sorted(seen)
    assert seen[-1] == (10, 10)


def assert_ends_once(found: Sequence[Completion], ends: Sequence[int], most: int) -> None:
    for completion in found:
        count = sum(token in ends for token in completion.ids)
        assert count == completion.finished
        assert not completion.finished or completion.ids[-1] in ends
        assert 1 <= len(completion.ids) <= most
        assert completion.finished or len(completion.ids) == most


def test_the_ending_id_stands_once_at_the_end_or_the_answer_was_cut(
    policy: tuple[Any, TokenRules],
) -> None:
    found = draw(policy, TEXTS, samples=20)
    assert {c.finished for c in found} == {True, False}
    assert_ends_once(found, (2,), most=8)


def test_prompt_and_answer_are_together_what_the_ids_say(policy: tuple[Any, TokenRules]) -> None:
    rules = policy[1]
    for completion in draw(policy, TEXTS, samples=10):
        whole = rules.text(completion.prompt_ids + completion.ids)
        assert completion.prompt + completion.text == whole


def test_a_long_prompt_is_cut_at_its_beginning_and_keeps_its_bos(
    policy: tuple[Any, TokenRules],
) -> None:
    (found,) = draw(policy, ["the film and the cast and"], samples=1, max_prompt_tokens=3)
    rules = policy[1]
    assert found.prompt_ids == (1, *rules.prompt_ids("cast and")[1:])
    assert found.prompt == "the film and the cast and"
    assert found.text == rules.text(found.prompt_ids + found.ids)[len("cast and") :]


def test_greedy_is_the_likeliest_token_at_every_step(policy: tuple[Any, TokenRules]) -> None:
    model = policy[0]
    for completion in draw(policy, TEXTS, samples=2, temperature=0.0):
        ids = list(completion.prompt_ids)
        for token in completion.ids:
            with torch.no_grad():
                assert token == int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            ids.append(token)


@pytest.mark.parametrize("most", [1, 2, 5, 16])
def test_a_policy_is_asked_with_the_ids_that_it_is_trained_on(
    most: int, policy: tuple[Any, TokenRules]
) -> None:
    texts = [text for text in TEXTS if text]
    pairs = [Pair(text, "train", text, " is good", " is bad") for text in texts]
    kept, _ = tokenise(pairs, policy[1], Limits(most, 16, "cut"))
    asked = draw(policy, texts, samples=1, max_prompt_tokens=most)
    prompts = list(dict.fromkeys(completion.prompt_ids for completion in asked))
    assert [pair.prompt for pair in kept] == prompts
    # And what it answers is trained on as it stands.
    sampled = [
        Pair(str(row), "train", c.prompt, c.text, " is bad", c.prompt_ids, c.ids, (5, 2))
        for row, c in enumerate(asked)
        if set(c.ids) - {0, 1, 2, 3}
    ]
    kept, _ = tokenise(sampled, policy[1], Limits(most, 16, "cut"))
    given = {(pair.prompt_ids, pair.chosen_ids) for pair in sampled}
    assert {(pair.prompt, pair.chosen) for pair in kept} == given


# ---- Honest samples


def small(logprobs: Tensor) -> tuple[Any, TokenRules]:
    """A bigram policy with the tokenizer of a world: pad, bos, eos, unk and some words."""
    words = ["a", *(f"a{i}" for i in range(1, len(logprobs) - 4))]
    _, tokenizer = build_small(SmallModel(words, SHAPE), seed=0)
    return bigrams(logprobs), TokenRules.of(tokenizer)


def table(seed: int = 0, words: int = 3, spread: float = 1.0) -> Tensor:
    """Random bigrams over 4 special ids and some words; pad, bos and unk never come."""
    draw = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(4 + words, 4 + words, generator=draw)
    logits[:, [0, 1, 3]] = -30.0
    return logits.log_softmax(-1)


# Each would change the samples beyond doubt; do_sample is off, as in many a chat model.
LEAKS: dict[str, Any] = {
    "top_k": 1, "top_p": 0.1, "temperature": 0.05, "repetition_penalty": 50.0, "min_p": 0.9,
    "no_repeat_ngram_size": 1, "typical_p": 0.1, "min_new_tokens": 5, "do_sample": False,
    "suppress_tokens": [2], "bad_words_ids": [[4]], "max_length": 3, "num_beams": 3,
    "num_return_sequences": 2, "epsilon_cutoff": 0.5, "forced_eos_token_id": 2,
    "renormalize_logits": True, "begin_suppress_tokens": [5], "guidance_scale": 3.0,
}  # fmt: skip


def assert_drawn_from(shares: Tensor, tokens: Sequence[int]) -> None:
    """Chi-square of sampled tokens; what has no share worth naming must not occur."""
    expected = len(tokens) * shares.double().numpy()
    counts = np.bincount(tokens, minlength=len(expected))
    kept = expected > 1e-3
    assert counts[kept].sum() == len(tokens)
    expected = expected[kept] * len(tokens) / expected[kept].sum()
    assert chisquare(counts[kept], expected).pvalue > 1e-4


@pytest.mark.parametrize("leak", [{}, *({key: value} for key, value in LEAKS.items())], ids=str)
def test_the_models_own_decoding_defaults_do_not_leak_in(leak: dict[str, Any]) -> None:
    logprobs = table()
    model, rules = small(logprobs)
    for key, value in leak.items():  # as read from a file, which nobody validates
        setattr(model.generation_config, key, value)
    found = draw((model, rules), ["a"], samples=400, max_tokens=4)
    assert len(found) == 400
    assert_drawn_from(logprobs[4].exp(), [completion.ids[0] for completion in found])


def test_nor_do_those_of_the_library_that_generates() -> None:
    # It would keep the 50 likeliest tokens where nothing else is said.
    logprobs = table(words=57, spread=0.3)  # no two are alike: ties would all be kept
    found = draw(small(logprobs), ["a"], samples=2000, max_tokens=1)
    assert {completion.ids[0] for completion in found} == {2, *range(4, 61)}
    assert_drawn_from(logprobs[4].exp(), [completion.ids[0] for completion in found])


def test_nor_do_they_leak_through_an_adapter() -> None:
    logprobs = table()
    model, rules = small(logprobs)
    for key in ("top_k", "repetition_penalty", "suppress_tokens"):
        setattr(model.generation_config, key, LEAKS[key])
    adapted = adapt(model, LORA, seed=0).eval()
    found = draw((adapted, rules), ["a"], samples=400, max_tokens=4)
    assert_drawn_from(logprobs[4].exp(), [completion.ids[0] for completion in found])


def test_nor_from_an_old_kind_of_model_folder(tmp_path: Path) -> None:
    logprobs = table()
    model, rules = small(logprobs)
    save_policy(model, rules.tokenizer, tmp_path)
    (tmp_path / "generation_config.json").unlink()
    config = json.loads((tmp_path / "config.json").read_text())
    keys = ("top_k", "repetition_penalty", "temperature", "num_beams")
    config |= {key: LEAKS[key] for key in keys}
    (tmp_path / "config.json").write_text(json.dumps(config))
    found = draw((load_policy(tmp_path)[0].eval(), rules), ["a"], samples=400, max_tokens=4)
    assert_drawn_from(logprobs[4].exp(), [completion.ids[0] for completion in found])


def test_sampled_tokens_have_the_models_own_frequencies(policy: tuple[Any, TokenRules]) -> None:
    """Of a Transformer, at the first and at a later position, given what came before."""
    model, rules = policy
    found = draw(policy, ["the film"], samples=3000, max_tokens=2)
    start = rules.prompt_ids("the film")
    firsts = [completion.ids[0] for completion in found]
    with torch.no_grad():
        shares = model(input_ids=torch.tensor([start])).logits[0, -1].softmax(-1)
        assert_drawn_from(shares, firsts)
        often = max(set(firsts) - {rules.eos}, key=firsts.count)
        ids = torch.tensor([[*start, often]])
        shares = model(input_ids=ids).logits[0, -1].softmax(-1)
    assert_drawn_from(shares, [c.ids[1] for c in found if c.ids[0] == often])


def test_temperature_sharpens_as_it_says() -> None:
    logprobs = table()
    found = draw(small(logprobs), ["a"], samples=2000, max_tokens=1, temperature=0.5)
    assert_drawn_from((2 * logprobs[4]).softmax(-1), [completion.ids[0] for completion in found])


def test_all_ids_that_end_an_answer_are_known(shared: Path) -> None:
    model, tokenizer = load_policy(shared / "models" / "stories260k-llama")
    rules = TokenRules.of(tokenizer)
    # Stories end with 1 in this model's own contract, with 2 in its tokenizer's.
    assert stops(model, rules) == (1, 2)
    found = draw((model.eval(), rules), ["Once upon a time"], samples=2, max_tokens=160)
    assert_ends_once(found, (1, 2), most=160)
    again = draw((model, rules), ["Once upon a time"], samples=2, max_tokens=160)
    assert again == found  # the contract is not forgotten after the first batch
    for completion in found:
        assert completion.prompt + completion.text == rules.text(
            completion.prompt_ids + completion.ids
        )


def test_an_end_that_the_model_alone_declares_ends_an_answer() -> None:
    logprobs = table(words=3)
    model, rules = small(logprobs)
    model.generation_config.eos_token_id = 5
    assert stops(model, rules) == (2, 5)
    found = draw((model, rules), ["a"], samples=200, max_tokens=6)
    assert_ends_once(found, (2, 5), most=6)
    assert {c.ids[-1] for c in found if c.finished} == {2, 5}


# ---- Log-probs and KL


def test_a_completion_carries_the_sum_of_its_log_probs(policy: tuple[Any, TokenRules]) -> None:
    model = policy[0]
    found = draw(policy, TEXTS, samples=5)
    for completion, total in zip(found, totals(model, found, padded), strict=True):
        with torch.no_grad():
            plain = oracle(model, [(completion.prompt_ids, completion.ids)])["logprobs"]
        assert total == pytest.approx(float(plain.total()), abs=1e-4)
        assert int(plain.length) == len(completion.ids)


def exact_kl(policy: Tensor, reference: Tensor, start: int, most: int) -> float:
    """KL of whole answers by enumeration: every path, until it ends or is cut."""
    kl = 0.0
    for length in range(1, most + 1):
        for path in itertools.product(range(len(policy)), repeat=length):
            ended = path[-1] == 2
            if 2 in path[:-1] or not (ended or length == most):
                continue
            steps = list(zip((start, *path), path, strict=False))
            own = sum(float(policy[a, b]) for a, b in steps)
            other = sum(float(reference[a, b]) for a, b in steps)
            kl += math.exp(own) * (own - other)
    return kl


def test_the_kl_estimate_agrees_with_enumeration() -> None:
    one, other = table(seed=1).double(), table(seed=2).double()
    exact = exact_kl(one, other, start=4, most=3)
    assert exact > 0.3
    found = draw(small(one.float()), ["a"], samples=3000, max_tokens=3)
    own = totals(small(one.float())[0], found, padded)
    theirs = totals(small(other.float())[0], found, padded)
    ratios = np.array(own) - np.array(theirs)
    error = float(ratios.std(ddof=1)) / math.sqrt(len(ratios))
    assert error < 0.05
    assert abs(float(ratios.mean()) - exact) < 4 * error


def run_stage(world: World, name: str, settings: dict[str, Any], **more: Path) -> list[Completion]:
    work = world.work(name, {**SETTINGS, **settings}, **more)
    facts = generate(work)
    found = read_jsonl(work.out / "completions.jsonl", Completion)
    assert facts["completions"] == len(found)
    assert facts["tokens"] == sum(len(c.ids) for c in found)
    assert facts["finished"] == sum(c.finished for c in found) / len(found)
    assert facts["batching"] == "padded batches"
    return found


def test_the_kl_of_the_reference_with_itself_is_zero_to_the_last_bit(world: World) -> None:
    found = run_stage(world, "own", {})
    assert len(found) == 36
    assert all(c.logprob == c.reference_logprob for c in found)
    assert common(found)["kl"] == 0.0
    # A policy that was trained for no step at all is the reference, read from another folder.
    same = run_stage(world, "same", {}, trained=world.inputs["policy"])
    assert same == found


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_gives_the_same_bytes_twice(world: World, precision: str) -> None:
    for name in ("once", "twice"):
        run_stage(world, name, {"precision": precision})
    once, twice = (world.inputs[name] / "completions.jsonl" for name in ("once", "twice"))
    assert once.read_bytes() == twice.read_bytes()


def test_without_log_probs_there_is_no_kl(world: World) -> None:
    found = run_stage(world, "plain", {"logprobs": False})
    assert {c.logprob for c in found} == {None}
    assert "kl" not in common(found)
    assert [c.ids for c in found] == [c.ids for c in run_stage(world, "own again", {})]


@pytest.fixture(scope="module", params=["full", "lora"])
def trained(world: World, request: pytest.FixtureRequest) -> Path:
    lora = LORA if request.param == "lora" else None
    work = world.work(f"trained-{request.param}", {**CELL, "lora": lora})
    train_cell(work)
    assert (work.out / "adapter_config.json").exists() == (request.param == "lora")
    return work.out


def test_a_trained_policy_or_adapter_writes_and_is_scored(world: World, trained: Path) -> None:
    name = trained.name
    found = run_stage(world, f"by-{name}", {}, trained=trained)
    own = run_stage(world, f"by-reference-{name}", {})
    assert [c.prompt_id for c in found] == [c.prompt_id for c in own]
    assert [c.ids for c in found] != [c.ids for c in own]
    assert common(found)["kl"] > 0.1
    model, _ = load_trained(world.inputs["policy"], trained)
    reference, _ = load_policy(world.inputs["policy"])
    for completion in found[::7]:
        sequence = [(completion.prompt_ids, completion.ids)]
        with torch.no_grad():
            mine, theirs = (
                oracle(model.eval(), sequence)["logprobs"],
                oracle(reference.eval(), sequence)["logprobs"],
            )
        assert completion.logprob == pytest.approx(float(mine.total()), abs=1e-4)
        assert completion.reference_logprob == pytest.approx(float(theirs.total()), abs=1e-4)


def test_prompts_of_other_splits_are_not_answered(world: World, tmp_path: Path) -> None:
    splits = ("train", "validation", "test")
    rows = [{"prompt_id": s, "split": s, "text": "the film", "original": ""} for s in splits]
    (tmp_path / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = run_stage(world, "mixed", {"splits": ["train", "test"]}, corpus=tmp_path)
    assert {c.prompt_id for c in found} == {"train", "test"}


def test_only_answers_of_temperature_one_have_log_probs(world: World) -> None:
    decoding = {"samples": 2, "temperatures": [0.0, 0.5, 1.0], "max_tokens": 8}
    found = run_stage(world, "sweep", {"decoding": decoding})
    assert {c.temperature for c in found if c.logprob is not None} == {1.0}
    plain = {(c.prompt_id, c.sample): c for c in run_stage(world, "plain", {
        "decoding": {**decoding, "temperatures": [1.0]},
    })}  # fmt: skip
    for c in found:
        if c.temperature == 1.0:
            assert c == plain[c.prompt_id, c.sample]


def test_generation_in_bf16_scores_what_it_wrote(world: World) -> None:
    narrow = run_stage(world, "narrow", {"precision": "bf16"})
    assert common(narrow)["kl"] == 0.0
    model, _ = load_policy(world.inputs["policy"])
    plain = totals(model.eval(), narrow, oracle)
    assert [c.logprob for c in narrow] == pytest.approx(plain, abs=0.2)
    assert [c.logprob for c in narrow] != plain


# ---- What is said of completions


def said(text: str, ids: int = 3, finished: bool = True, **more: Any) -> Completion:
    return Completion("p", 0, "the film", text, (1, 4), (5,) * ids, finished, **more)


def test_common_metrics_by_hand() -> None:
    found = common(
        [
            said(" is good", 3, logprob=-2.0, reference_logprob=-3.5),
            said(" is good and good", 6, finished=False, logprob=-4.0, reference_logprob=-3.5),
        ]
    )
    # Word pairs: (is good), (is good), (good and), (and good): three of four are different.
    assert found == {"kl": 0.5, "length": 4.5, "distinct_2": 0.75, "finished": 0.5}
    assert set(found) == {metric.name for metric in COMMON}


def test_a_kl_needs_all_of_its_completions() -> None:
    half = [said("a", logprob=-1.0, reference_logprob=-1.0), said("a", logprob=-1.0)]
    assert "kl" not in common(half)


def test_distinct_pairs_of_words() -> None:
    assert distinct(["a b a b a"], 2) == 0.5
    assert distinct(["a b", "b a"], 2) == 1.0
    assert distinct(["a", ""], 2) == 1.0
    assert distinct(["a  b\n", "a b"], 2) == 0.5  # pairs do not reach from one answer to the next


def test_the_score_stage_writes_one_value_per_prompt_and_metric(world: World) -> None:
    run_stage(world, "completions", {})
    settings = {"task": "sentiment", "task_settings": load_task("sentiment").resolve()}
    work = world.work("scores", settings)
    facts = score_stage(work)
    table = pq.read_table(work.out / "scores.parquet").to_pandas()
    assert not table.duplicated(["prompt_id", "metric"]).any()
    assert set(table.groupby("metric").prompt_id.nunique()) == {12}
    assert set(table.metric) >= {"kl", "length", "distinct_2", "finished"}
    for metric, mean in facts["means"].items():
        assert mean == pytest.approx(table[table.metric == metric].value.mean())
    kl = table[table.metric == "kl"]
    assert (kl.value == 0).all()


def test_a_task_that_forgets_a_completion_is_refused(world: World, tmp_path: Path) -> None:
    run_stage(world, "completions", {})
    plugin = tmp_path / "careless.py"
    plugin.write_text(
        '''
from harness.api import Corpus, Metric, Task, task

@task()
def careless(*, forget: bool = True) -> Task:
    """Scores all completions but one, or names another metric."""
    def score(completions):
        return [{"a" if forget else "b": 1.0} for _ in completions[int(forget):]]
    metrics = [Metric("a", "", "higher", "one")]
    return Task(lambda sizes, rng: Corpus([], []), lambda *_: [], score, metrics)
'''
    )
    for forget in (True, False):
        work = world.work("careless", {"task": str(plugin), "task_settings": {"forget": forget}})
        with pytest.raises(DataError, match="must score every completion on"):
            score_stage(work)


def test_words_of_the_world_are_words_of_its_tokenizer(world: World) -> None:
    tokenizer = AutoTokenizer.from_pretrained(world.inputs["policy"])
    rules = TokenRules.of(tokenizer)
    assert len(rules.prompt_ids(" ".join(WORDS))) == 1 + len(WORDS)
