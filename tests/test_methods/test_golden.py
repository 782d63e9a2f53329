"""Every row of the reference numbers, computed independently in double precision."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .numbers import FIXTURE, close, gradients


class Case(NamedTuple):
    """What a row of the reference numbers is here; `inputs` are those beside the fixture."""

    method: str
    settings: dict[str, Any] = {}  # noqa: RUF012
    inputs: dict[str, Any] = {}  # noqa: RUF012


LITERAL = {"statistics": "literal"}
ROWS: dict[str, Case] = {
    "dpo beta=0.1": Case("dpo"),
    "cdpo beta=0.1 eps=0.1": Case("cdpo", {"beta": 0.1, "epsilon": 0.1}),
    "robust beta=0.1 eps=0.1": Case("robust_dpo", {"beta": 0.1, "epsilon": 0.1}),
    "hinge beta=0.1": Case("hinge", {"beta": 0.1}),
    "ipo-sum tau=0.1": Case("ipo", {"tau": 0.1, "reduction": "sum"}),
    "ipo-mean tau=0.1": Case("ipo", {"tau": 0.1, "reduction": "mean"}),
    "sigmoid_norm(LN-DPO) beta=5": Case("ln_dpo", {"beta": 5.0}),
    "rdpo beta=0.1 alpha=0.05 (+alpha(Lw-Ll))": Case("rdpo", {"beta": 0.1, "alpha": 0.05}),
    "simpo beta=2.5 gamma/beta=0.55": Case("simpo", {"beta": 2.5, "gamma": 2.5 * 0.55}),
    "alphapo beta=2.5 alpha=0.25 gamma=0.1": Case(
        "alphapo", {"beta": 2.5, "alpha": 0.25, "gamma": 0.1}
    ),
    "simper": Case("simper"),
    "cpo beta=0.1 (preference term only)": Case("cpo", {"beta": 0.1, "alpha": 0.0}),
    "orpo lambda=0.1 (odds term only)": Case("orpo", {"lambda_": 0.1, "nll": 0.0}),
    "odpo beta=0.1 offset=0.3": Case(
        "odpo", {"beta": 0.1, "alpha": 1.0}, {"rewards": ((math.exp(0.3),) * 4, (0.0,) * 4)}
    ),
    "dpop beta=0.3 lambda=50": Case("dpop", {"beta": 0.3, "lambda_": 50.0}),
    "caldpo-code beta=0.1 (0.5*cal, per-pair form)": Case("cal_dpo", {"beta": 0.1, "form": "code"}),
    "dposhift beta=0.1 lambda=0.75": Case("dpo_shift", {"beta": 0.1, "lambda_": 0.75}),
    "exo_pair beta=0.1 eps=1e-3": Case("exo", {"beta": 0.1, "epsilon": 1e-3, "form": "paper"}),
    "nca_pair beta=0.1": Case("nca", {"beta": 0.1}),
    "bco_pair beta=0.1 delta=0": Case("bco", {"beta": 0.1, "shift": "none", "reduction": "sum"}),
    "sppo_hard beta=0.1 (TRL, no 1/2)": Case("sppo_hard", {"beta": 0.1, "form": "trl"}),
    "apo_zero beta=0.1": Case("apo_zero", {"beta": 0.1}),
    "apo_down beta=0.1": Case("apo_down", {"beta": 0.1}),
    "discopop beta=0.05 tau=0.05": Case("discopop", {"beta": 0.05, "tau": 0.05}),
    "fdpo forward_kl beta=0.1": Case("fdpo", {"beta": 0.1, "f": "forward_kl"}),
    "fdpo js beta=0.1": Case("fdpo", {"beta": 0.1, "f": "js"}),
    "fdpo alpha=0.5 (=TRL coef 0.5) beta=0.1": Case(
        "fdpo", {"beta": 0.1, "f": "alpha", "alpha": 0.5}
    ),
    "chipo beta=0.1 (no clip)": Case("chipo", {"beta": 0.1, "r_max": None}),
    "kto pairwise-as-unpaired beta=0.1 z0=0.25 lamD=lamU=1 (sum of the two terms)": Case(
        "kto",
        {"beta": 0.1, "reduction": "sum"},
        {"mismatched": ((0.5, 0.3, 0.7, -0.1), (0.1, 0.2, 0.4, -0.1))},
    ),
    "tdpo1 beta=0.1 (KL treated constant)": Case("tdpo", {"beta": 0.1, "form": "tdpo1"}),
    "tdpo2 beta=0.1 alpha=0.5 (KL treated constant)": Case(
        "tdpo", {"beta": 0.1, "alpha": 0.5, "form": "tdpo2"}
    ),
    "slic-hf (HALOs) delta=1 lambda=0, summed logps": Case(
        "slic_hf", {"delta": 1.0, "lambda_": 0.0}
    ),
    "rrhf pair, length-normalised, lambda_sft=0": Case("rrhf", {"weight": 1.0, "sft": 0.0}),
    "beta-dpo beta0=0.1 a=0.6 no-filter first step from EMA 0": Case(
        "beta_dpo", {"beta": 0.1, "alpha": 0.6, "rho": 1.0, **LITERAL}
    ),
    "madpo beta=0.1 c_max=4 c_min=1/4 lambda=1 tau=ln999": Case(
        "madpo", {"c_max": 4.0, "c_min": 0.25, "tau": math.log(999)}
    ),
    "madpo beta=0.1 c_max=2 c_min=1/2 lambda=1 tau=2": Case("madpo"),
    "alphadpo beta=2.5 gamma/beta=0.6 alpha=0.2 EMA first step from 0 (mu=.1*mean, sd=.1*std)": (
        Case("alphadpo", LITERAL)
    ),
    # One corrected step equals the limit of many.
    "alphadpo beta=2.5 gamma/beta=0.6 alpha=0.2 EMA converged (mu=mean, sd=unbiased std)": (
        Case("alphadpo")
    ),
    "alphadpo alpha=0 == simpo gamma/beta=0.6 beta=2.5": Case("alphadpo", {"alpha": 0.0}),
    "amapo-code beta=3": Case("amapo", {"beta": 3.0, "form": "code"}),
    "amapo-paper beta=3 (r includes beta)": Case("amapo", {"beta": 3.0, "form": "paper"}),
    **{
        f"adadpo beta=0.1 space={space} len-norm C={ceiling}": Case(
            "adadpo", {"beta": 0.1, "balance_space": space, "ceiling": ceiling}
        )
        for space in ("policy", "ratio")
        for ceiling in (2.0, None)
    },
    "aot beta=0.01 (batch mean)": Case("aot", {"beta": 0.01}),
    "aot_unpaired beta=0.01 (batch mean)": Case("aot_unpaired", {"beta": 0.01}),
    "dr-dpo beta=0.1 beta_prime=1 (batch)": Case("dr_dpo", {"beta": 0.1, "beta_prime": 1.0}),
}


@pytest.mark.parametrize("row", ROWS)
def test_reference_numbers(row: str, shared: Path) -> None:
    sheet = json.loads((shared / "reference/golden_vectors.json").read_text())
    method, settings, more = ROWS[row]
    losses, chosen, rejected = gradients(method, settings, **{**sheet["fixture"], **more})
    expected = sheet["results"][row]
    if isinstance(expected, float):  # of the whole batch
        close(losses.mean(), expected, 1e-6)
        return
    close(losses, expected["loss"], 1e-6)
    close(losses.mean(), expected["mean"], 1e-6)
    close(chosen, expected["dw"], 1e-5)
    close(rejected, expected["dl"], 1e-5)


def test_no_row_of_the_reference_numbers_is_left_out(shared: Path) -> None:
    sheet = json.loads((shared / "reference/golden_vectors.json").read_text())
    assert set(sheet["results"]) == set(ROWS)
    for key, values in FIXTURE.items():
        assert tuple(sheet["fixture"][key]) == values
