"""Every default of every method, as its source has it: a changed one is a changed baseline."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from .numbers import load_method

METHODS = Path(__file__).parents[2] / "methods"

# The harness's own, for want of a source: the words, AMaPO's cap, MMPO's gamma, DPO-Shift's steps
# and the epsilon of the corrected statistics.
DEFAULTS: dict[str, dict[str, Any]] = {
    "adadpo": {
        "beta": 0.1,
        "balance_space": "policy",
        "ceiling": 2.0,
        "exponent": 1.0,
        "per_token": True,
        "form": "dpo",
        # Of the forms: those of simpo, rdpo, ipo, orpo and cpo below.
        "gamma": 1.0,
        "alpha": 0.1,
        "tau": 0.1,
        "lambda_": 0.1,
        "nll": 1.0,
    },
    "alphadpo": {
        "beta": 2.5,
        "gamma_beta_ratio": 0.6,
        "alpha": 0.2,
        "decay": 0.9,
        "statistics": "corrected",
        "epsilon": 1e-3,
    },
    "alphapo": {"beta": 2.5, "alpha": 0.25, "gamma": 0.1},
    "amapo": {"beta": 2.0, "form": "code", "cap": 80.0},
    "aot": {"beta": 0.01},
    "aot_unpaired": {"beta": 0.01},
    "apo_down": {"beta": 0.1},
    "apo_zero": {"beta": 0.1},
    "bco": {"beta": 0.01, "shift": "running", "reduction": "mean"},
    "beta_dpo": {
        "beta": 0.1,
        "alpha": 0.6,
        "rho": 0.8,
        "decay": 0.9,
        "statistics": "corrected",
        "epsilon": 1e-3,
        "beta_min": 1e-3,
    },
    "cal_dpo": {"beta": 2e-3, "form": "code"},
    "cdpo": {"beta": 0.1, "epsilon": 0.2},
    "chipo": {"beta": 0.1, "r_max": None},
    "cpo": {"beta": 0.1, "alpha": 1.0, "reduction": "tokens"},
    "discopop": {"beta": 0.05, "tau": 0.05},
    "dpo": {"beta": 0.1},
    "dpo_nll": {"beta": 0.1, "alpha": 1.0, "reduction": "tokens"},
    "dpo_shift": {
        "beta": 0.01,
        "lambda_": 0.7,
        "schedule": "fixed",
        "lambda_min": 0.5,
        "lambda_max": 1.0,
        "steps": 500,
    },
    "dpop": {"beta": 0.3, "lambda_": 50.0},
    "dr_dpo": {"beta": 0.1, "beta_prime": 1.0},
    "exo": {"beta": 0.1, "epsilon": math.exp(-10), "form": "code"},
    "fdpo": {"beta": 0.1, "f": "js", "alpha": 0.5},
    "gammapo": {
        "beta": 10.0,
        "gamma_beta_ratio": 0.4,
        "tau": 10.0,
        "form": "simpo",
        "sample": 256,
        "steps": 20,
    },
    "hinge": {"beta": 0.05},
    "ipo": {"tau": 0.1, "reduction": "mean"},
    "kto": {"beta": 0.1, "lambda_d": 1.0, "lambda_u": 1.0, "reduction": "mean"},
    "ld_dpo": {"beta": 0.1, "alpha": 0.5},
    "ln_dpo": {"beta": 5.0},
    "madpo": {
        "beta": 0.1,
        "c_max": 2.0,
        "c_min": 0.5,
        "lambda_": 1.0,
        "tau": 2.0,
        "form": "full",
    },
    "mallowspo": {"beta": 10.0, "c": 0.29, "reduction": "mean", "reference_free": True},
    "mmpo": {"beta": 0.1, "gamma": 1.0},
    "nca": {"beta": 0.01},
    "odpo": {"beta": 0.1, "alpha": 1.0, "offset": "log_difference"},
    "orpo": {"lambda_": 0.1, "nll": 1.0, "reduction": "tokens"},
    "rdpo": {"beta": 0.1, "alpha": 0.1},
    "robust_dpo": {"beta": 0.1, "epsilon": 0.1},
    "rrhf": {"weight": 100.0, "eta": 1.0, "sft": 1.0},
    "sampo": {"beta": 0.1, "shared": False},
    "simper": {},
    "simpo": {"beta": 2.0, "gamma": 1.0},
    "slic_hf": {"delta": 1.0, "lambda_": 0.1, "reduction": "sum"},
    "sppo_hard": {"beta": 1e-3, "form": "code"},
    "tdpo": {"beta": 0.1, "alpha": 0.5, "form": "tdpo2"},
    "tr_dpo": {"beta": 0.1, "alpha": 0.6, "tau": 512},
    "wpo": {"beta": 0.01, "clamp": True},
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_those_of_the_source(name: str) -> None:
    assert dict(load_method(name).defaults) == DEFAULTS[name]


def test_no_method_is_left_out() -> None:
    assert {path.stem for path in METHODS.glob("[!_]*.py")} == set(DEFAULTS)
