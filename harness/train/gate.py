"""The gate at the start of a run: engine, cache and first loss must be what they have to be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from harness.contracts.logprobs import LogProbs, PairLogProbs
from harness.engine.engines import largest_difference, noise_floor
from harness.errors import GateError
from harness.train.evaluate import complaint
from harness.train.run import Run

SAMPLE_PAIRS = 32
"""Pairs whose cached reference log-probs are scored again at the start of a run."""

ORACLE_PAIRS = 4
"""Pairs that the engine and the oracle are compared on."""

LIMITS: Mapping[str, Mapping[str, float]] = {
    "fp32": {"oracle": 1e-3, "cache": 1e-3, "margin": 0.01, "loss": 1e-3},
    "bf16": {"oracle": 0.5, "cache": 0.5, "margin": 1.0, "loss": 0.1},
}
"""The most that the gate lets through: nats per token; nats per token; standard deviation in nats
of a pair's policy gap minus its reference gap, which is 0 but for noise and which losses multiply
by beta; the first loss relative to 1 + |loss|. What was really found goes into the manifest."""


def open_gate(
    run: Run, first: Sequence[int], seed: int, limits: Mapping[str, float]
) -> dict[str, Any]:
    """Compare engine, cache and first loss with what they must be, before a weight is touched.

    Returns:
        the differences that were found, for the manifest.

    Raises:
        GateError: one of them is over its limit; the run is void.
    """
    sample = np.random.default_rng(seed).permutation(len(run.pairs))[:SAMPLE_PAIRS].tolist()
    few = [run.pairs[row] for row in sample[:ORACLE_PAIRS]]
    learner, cache = run.learner, run.ingredients.reference
    found: dict[str, Any] = {
        "noise_floor": noise_floor(learner.engine, learner.model, few, limits["oracle"])
    }
    _check_coupling(run, first)
    with torch.no_grad():
        seen = run.see(first)
        loss = float(run.losses(first, seen, run.start()).mean())
    found["first_loss"] = loss
    if not math.isfinite(loss):
        rule = f"its first loss is {loss}: it must be finite where the policy is the reference"
        raise GateError(complaint(run.method, rule))
    if cache is None:
        return found
    where = run.ingredients.where
    with torch.no_grad():
        # Nothing is trained yet, so the policy in memory is the reference policy.
        fresh, cached = run.see(sample)["policy"], cache.rows(sample, where)
        found["reference"] = check_cache(fresh, cached, limits["cache"])
        found["margin_noise"] = _margin_noise(fresh, cached, limits["margin"])
        by_cache = {**seen, "policy": cache.rows(first, where)}
        expected = float(run.losses(first, by_cache, run.start()).mean())
    found["expected_loss"] = expected
    _check_loss(loss, expected, "from the cached reference", limits["loss"])
    declared = run.method.narrowed(learner.settings).at_reference
    if isinstance(declared, float | int):
        _check_loss(loss, declared, "declared by the method", limits["loss"])
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def _check_coupling(run: Run, first: Sequence[int]) -> None:
    """A loss that depends on the step's other pairs must say so: it may not be split then.

    Raises:
        GateError: the losses of half a step are not those of the whole step.
    """
    if run.method.whole_step or len(first) < 2:
        return
    half = len(first) // 2
    with torch.no_grad():
        seen = run.see(first)
        policy = seen["policy"]
        # The policy moves no step yet, so a spread is put in: equal pairs would hide a coupling.
        spread = torch.arange(len(first), device=policy.chosen.values.device) / len(first)
        chosen = LogProbs(policy.chosen.values - spread[:, None], policy.chosen.mask)
        seen["policy"] = PairLogProbs(chosen, policy.rejected)
        whole = run.losses(first, seen, None)
        part = {
            name: PairLogProbs(*(
                LogProbs(s.values[:half], s.mask[:half]) for s in (pair.chosen, pair.rejected)
            ))
            for name, pair in seen.items()
        }  # fmt: skip
        alone = run.losses(first[:half], part, None)
    if not torch.allclose(whole[:half], alone, rtol=1e-4, atol=1e-5, equal_nan=True):
        rule = (
            "a pair's loss depends on the step's other pairs, and the method does not say so: add "
            "coupled=True to its decorator"
        )
        raise GateError(complaint(run.method, rule))


def check_cache(fresh: PairLogProbs, cached: PairLogProbs, limit: float) -> float:
    """Largest difference per token between cached and fresh reference log-probs, in nats.

    Raises:
        GateError: the cache belongs to another model, precision or truncation.
    """
    for a, b in ((fresh.chosen, cached.chosen), (fresh.rejected, cached.rejected)):
        if not torch.equal(a.mask, b.mask):
            raise GateError("cached reference log-probs have other lengths than the pairs have")
    worst = largest_difference(fresh, cached)
    if not worst <= limit:
        raise GateError(
            f"cached reference log-probs are off by {worst:.3g} nats per token (limit {limit:g}): "
            "the cache was made by another model, precision or kernel"
        )
    return worst


def _margin_noise(fresh: PairLogProbs, cached: PairLogProbs, limit: float) -> float:
    gaps = [p.chosen.total() - p.rejected.total() for p in (fresh, cached)]
    noise = float((gaps[0] - gaps[1]).std(correction=0))
    if not noise <= limit:
        raise GateError(
            f"policy and reference are the same model, and their gaps differ by {noise:.3g} nats a "
            f"pair (limit {limit:g}): this precision is too coarse for this model"
        )
    return noise


def _check_loss(loss: float, wanted: float, why: str, limit: float) -> None:
    # What is 0/0 at the reference to the bit is finite beside it: the loss itself was looked at.
    if math.isfinite(wanted) and abs(loss - wanted) > limit * (1 + abs(wanted)):
        raise GateError(
            f"the first loss is {loss:.6g} but must be {wanted:.6g} ({why}): before the first step "
            "policy and reference have to be the same model"
        )
