"""What the contract of a method accepts, and how it refuses the rest."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch

from harness.api import LogProbs, PairLogProbs, PerPair, RequestError, State, method
from harness.budget import Budget
from harness.contracts.settings import checked, within
from harness.pipeline.trials import Trial, edges, trials


def plain(
    policy: PairLogProbs,
    margin: PerPair,
    *,
    beta: float = 1,
    steps: int = 3,
    norm: bool = False,
    form: Literal["sum", "mean"] = "sum",
    cap: float | None = None,
) -> PerPair:
    """A loss that reads two things.

    And a second line.
    """
    return policy.chosen.total() * beta - margin


def test_a_method_is_described_by_its_signature() -> None:
    made = method(source="none", grid={"beta": (1, 2.5)}, bounds={"beta": "(0, inf)"})(plain)
    assert made.name == "plain"
    assert made.reads == ("policy", "margin")
    assert made.summary == "A loss that reads two things."
    assert made.defaults == {"beta": 1.0, "steps": 3, "norm": False, "form": "sum", "cap": None}
    assert (made.coupled, made.initial, made.at_reference) == (False, None, None)


def test_a_default_is_kept_in_its_declared_type() -> None:
    made = method(source="none")(plain)
    assert type(made.defaults["beta"]) is float
    assert made.resolve({"beta": 2}) == made.resolve({"beta": 2.0})
    assert type(made.resolve({"beta": 2})["beta"]) is float


def test_settings_lie_over_the_defaults_and_change_neither() -> None:
    made = method(source="none")(plain)
    assert made.resolve({"form": "mean"}) == {**made.defaults, "form": "mean"}
    assert made.defaults["form"] == "sum"
    assert made.resolve({"cap": 2})["cap"] == 2.0
    assert made.resolve({"cap": None})["cap"] is None
    assert made.resolve({"cap": "none"})["cap"] is None, "as a command line says it"


def test_an_unknown_input_is_refused_with_the_nearest() -> None:
    def loss(policy: PairLogProbs, refrence: PairLogProbs) -> PerPair: ...

    with pytest.raises(RequestError, match=r"input of method 'loss' 'refrence'.*'reference'"):
        method(source="none")(loss)


def test_a_setting_without_a_default_is_refused() -> None:
    def loss(policy: PairLogProbs, *, beta: float) -> PerPair: ...

    with pytest.raises(RequestError, match="'beta' must be an input or a setting with a default"):
        method(source="none")(loss)


def test_a_setting_without_a_type_is_refused() -> None:
    def loss(policy, *, beta=0.1): ...  # type: ignore[no-untyped-def]

    with pytest.raises(RequestError, match=r"'loss.beta' has no type"):
        method(source="none")(loss)


def test_a_default_of_another_type_is_refused() -> None:
    def loss(policy: PairLogProbs, *, beta: float = "a"): ...  # type: ignore

    with pytest.raises(RequestError, match=r"'loss.beta' must be of type float, not 'a'"):
        method(source="none")(loss)


def test_variable_arguments_are_refused() -> None:
    def loss(policy: PairLogProbs, *rest: Any) -> PerPair: ...

    with pytest.raises(RequestError, match="'rest'"):
        method(source="none")(loss)


def test_a_loss_that_does_not_read_the_policy_is_refused() -> None:
    def loss(reference: PairLogProbs) -> PerPair: ...

    with pytest.raises(RequestError, match="does not read `policy`"):
        method(source="none")(loss)


@pytest.mark.parametrize("initial", [None, {"mean": 0.0}])
def test_state_and_its_initial_value_go_together(initial: dict[str, float] | None) -> None:
    def stateless(policy: PairLogProbs) -> PerPair: ...

    def stateful(policy: PairLogProbs, state: State) -> tuple[PerPair, State]: ...

    wrong, right = (stateful, stateless) if initial is None else (stateless, stateful)
    method(source="none", initial=initial)(right)
    with pytest.raises(RequestError, match="go together"):
        method(source="none", initial=initial)(wrong)


@pytest.mark.parametrize("where", ["grid", "bounds"])
def test_a_grid_or_bound_of_no_setting_is_refused_with_the_nearest(where: str) -> None:
    words: dict[str, Any] = {where: {"betta": (1.0,) if where == "grid" else "(0, inf)"}}
    with pytest.raises(RequestError, match="'betta': did you mean 'beta'"):
        method(source="none", **words)(plain)


def test_a_grid_out_of_bounds_or_of_another_type_is_refused() -> None:
    with pytest.raises(RequestError, match=r"'plain.beta' must lie in \(0, inf\), not 0.0"):
        method(source="none", grid={"beta": (0.0, 1.0)}, bounds={"beta": "(0, inf)"})(plain)
    with pytest.raises(RequestError, match=r"'plain.steps' must be of type int"):
        method(source="none", grid={"steps": (1.5,)})(plain)


def test_a_default_out_of_bounds_is_refused() -> None:
    with pytest.raises(RequestError, match=r"'plain.beta' must lie in \(1, 2\], not 1.0"):
        method(source="none", bounds={"beta": "(1, 2]"})(plain)


def test_an_unknown_setting_is_refused_with_the_nearest() -> None:
    with pytest.raises(RequestError, match="setting of method 'plain' 'bta': did you mean 'beta'"):
        method(source="none")(plain).resolve({"bta": 1.0})


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("beta", "0.1"),
        ("beta", True),
        ("beta", math.nan),
        ("beta", math.inf),
        ("beta", None),
        ("steps", 1.0),
        ("steps", True),
        ("norm", 1),
        ("form", "summ"),
        ("form", None),
        ("cap", "off"),
    ],
)
def test_a_value_of_another_type_is_refused_by_name(key: str, value: Any) -> None:
    with pytest.raises(RequestError, match=f"plain.{key}"):
        method(source="none")(plain).resolve({key: value})


def test_inputs_are_those_that_the_loss_reads() -> None:
    made = method(source="none")(plain)
    policy, margin = PairLogProbs.from_totals(torch.zeros(2), torch.zeros(2)), torch.ones(2)
    assert made.losses({"beta": 2.0}, policy=policy, margin=margin).tolist() == [-1, -1]
    with pytest.raises(RequestError, match="reads margin: not given"):
        made.losses(policy=policy)
    with pytest.raises(RequestError, match="'margins': did you mean 'margin'"):
        made.losses(policy=policy, margin=margin, margins=margin)


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("(0, inf)", (1e-9, 1, 1e9), (0, -1)),
        ("[0, 1)", (0, 0.5), (1, -1e-9)),
        ("(0, 1]", (1, 1e-9), (0, 1.0000001)),
        ("[-2.5, 1e-3]", (-2.5, 0, 1e-3), (-2.6, 0.002)),
        ("(-inf, 0)", (-3,), (0,)),
    ],
)
def test_an_interval_includes_the_ends_with_square_brackets(
    interval: str, inside: tuple[float, ...], outside: tuple[float, ...]
) -> None:
    for value in inside:
        within("m.beta", value, interval)
    for value in outside:
        with pytest.raises(RequestError, match=r"'m.beta' must lie in"):
            within("m.beta", value, interval)
    within("m.beta", None, interval)


@pytest.mark.parametrize("interval", ["0, 1", "[0 1]", "(a, 1)", "[0, 1", ""])
def test_an_interval_that_cannot_be_read_is_refused(interval: str) -> None:
    with pytest.raises(RequestError, match="as an interval"):
        within("m.beta", 0.5, interval)


def test_a_literal_may_hold_numbers() -> None:
    assert checked("k", 1, Literal[1, 2]) == 1
    with pytest.raises(RequestError, match="k"):
        checked("k", 3, Literal[1, 2])


def test_lengths_come_from_the_mask() -> None:
    mask = torch.tensor([[True, True, False], [True, True, True]])
    values = torch.tensor([[0.0, -1.0, math.nan], [0.0, 0.0, 0.0]])
    found = LogProbs(values, mask)
    assert found.length.tolist() == [2, 3]
    assert found.total().tolist() == [-1, 0]
    assert found.mean().tolist() == [-0.5, 0]


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16])
def test_narrow_values_are_summed_in_single_precision(narrow: torch.dtype) -> None:
    values = torch.full((1, 1000), -0.1, dtype=narrow)
    found = LogProbs(values, torch.ones(1, 1000, dtype=torch.bool))
    assert found.total().dtype == found.mean().dtype == found.length.dtype == torch.float32
    assert found.total().item() == pytest.approx(1000 * values[0, 0].item(), rel=1e-5)


def test_totals_and_lengths_come_back_as_they_were_given() -> None:
    totals, lengths = torch.tensor([-3.0, -50.0]), torch.tensor([1, 7])
    pairs = PairLogProbs.from_totals(totals, 2 * totals, lengths, lengths.flip(0))
    torch.testing.assert_close(pairs.chosen.total(), totals)
    torch.testing.assert_close(pairs.rejected.total(), 2 * totals)
    assert pairs.chosen.length.tolist() == [1, 7]
    assert pairs.rejected.length.tolist() == [7, 1]
    torch.testing.assert_close(pairs.rejected.mean(), 2 * totals / lengths.flip(0))


# What is described beside the signature


def shaped(
    policy: PairLogProbs,
    reference: PairLogProbs | None,
    state: State | None,
    *,
    form: Literal["dpo", "simpo", "both"] = "simpo",
    ratio: bool = False,
    mix: float = 0.5,
    every: int = 4,
) -> PerPair:
    """A loss whose form decides what it reads."""
    return policy.chosen.mean()


SHAPED: dict[str, Any] = {
    "source": "none",
    "initial": {"seen": 0.0, "queue": (0.0, 1.0)},
    "only_for": {"reference": {"form": ("dpo", "both"), "ratio": (True,)}, "state": {"mix": (1,)}},
    "at_reference": lambda s: s["mix"] if s["form"] == "dpo" else None,
}


def test_a_method_reads_what_its_settings_need() -> None:
    made = method(**SHAPED)(shaped)
    assert made.parameters == ("policy", "reference", "state")
    assert made.reads == ("policy",), "at the defaults"
    for settings, reads in (
        ({"form": "dpo"}, ("policy", "reference")),
        ({"form": "both", "mix": 1.0}, ("policy", "reference", "state")),
        ({"ratio": True}, ("policy", "reference")),
        ({"form": "simpo"}, ("policy",)),
    ):
        narrow = made.narrowed(settings)
        assert narrow.reads == reads
        assert narrow.whole_step == ("state" in reads)
        assert (narrow.initial is None) == ("state" not in reads)
    assert made.narrowed({"form": "dpo"}).narrowed().reads == ("policy",), "it can be widened again"


def test_what_is_not_read_arrives_as_none() -> None:
    got: list[Any] = []

    def shaped(
        policy: PairLogProbs,
        reference: PairLogProbs | None,
        *,
        form: Literal["dpo", "simpo"] = "simpo",
    ) -> PerPair:
        """Keeps what it is given."""
        got.append(reference)
        return policy.chosen.mean()

    made = method(source="none", only_for={"reference": {"form": ("dpo",)}})(shaped)
    pair = PairLogProbs.from_totals(torch.zeros(2), torch.zeros(2))
    made.losses(policy=pair)
    made.losses(policy=pair, reference=pair)
    made.losses({"form": "dpo"}, policy=pair, reference=pair)
    assert got == [None, None, pair]
    with pytest.raises(RequestError, match="reads reference: not given"):
        made.losses({"form": "dpo"}, policy=pair)


def test_the_loss_at_the_reference_may_follow_the_settings() -> None:
    made = method(**SHAPED)(shaped)
    assert made.narrowed({"form": "dpo", "mix": 0.25}).at_reference == 0.25
    assert made.narrowed().at_reference is None
    assert method(source="none", at_reference=2.0)(plain).narrowed().at_reference == 2.0


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"coupld": True}, r"argument of @method 'coupld'.*'coupled'"),
        (
            {"only_for": {"refrence": {"form": ("dpo",)}}},
            r"input or setting that 'shaped' describes",
        ),
        ({"only_for": {"reference": {"from": ("dpo",)}}}, r"setting that 'shaped' describes"),
        ({"grid": {"form": ("dpo", "simpo")}}, "'form' changes what it reads: no grid"),
        ({"moving_reference": ("mix", "evry")}, r"setting that 'shaped' describes 'evry'"),
    ],
)
def test_a_description_must_be_of_what_is_there(words: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint):
        method(**{**SHAPED, **words})(shaped)


def test_a_reference_that_is_not_read_cannot_be_moved() -> None:
    with pytest.raises(RequestError, match="moves a reference that it does not read"):
        method(source="none", moving_reference=("beta", "steps"))(plain)


def formed(
    policy: PairLogProbs,
    *,
    form: Literal["plain", "margin"] = "plain",
    margin: float = 1.0,
    beta: float = 0.1,
) -> PerPair:
    """A loss with a setting that one of its forms has no use for."""
    return policy.chosen.mean()


FORMED: dict[str, Any] = {"source": "none", "only_for": {"margin": {"form": ("margin",)}}}


def test_a_setting_without_effect_is_refused() -> None:
    made = method(**FORMED)(formed)
    with pytest.raises(
        RequestError, match=r"'formed.margin' has no effect here: it needs form=margin"
    ):
        made.resolve({"margin": 2.0})
    assert made.resolve({"margin": 2.0, "form": "margin"})["margin"] == 2.0
    assert made.resolve({"margin": 1.0}) == made.defaults, "its default may be said"
    assert made.resolve(made.resolve({"form": "margin"}))["form"] == "margin"


def test_what_a_form_has_no_use_for_makes_no_trials() -> None:
    grid = {"margin": (0.5, 1.0, 2.0), "beta": (0.1, 0.3)}
    made = method(**FORMED, grid=grid)(formed)
    budget = Budget(trials=2, learning_rates=(1e-3,), learning_rate=1e-3)
    plain = trials(made, made.defaults, budget, seed=0)
    assert [trial.settings["beta"] for trial in plain] == [0.1, 0.3]
    assert {trial.settings["margin"] for trial in plain} == {1.0}
    with pytest.raises(RequestError, match="has 2 different trials"):
        trials(made, made.defaults, replace(budget, trials=3), seed=0)
    wide = made.resolve({"form": "margin"})
    assert len(trials(made, wide, replace(budget, trials=6), seed=0)) == 6
    assert edges(Trial(made.resolve({}), 1e-3), made, budget) == ["beta"]


def test_what_holds_of_a_loss_may_follow_the_settings() -> None:
    made = method(
        source="none",
        coupled=lambda s: s["form"] == "margin",
        direction=lambda s: "at_reference" if s["form"] == "margin" else "everywhere",
    )(formed)
    plain, margin = made.narrowed(), made.narrowed({"form": "margin"})
    assert (plain.coupled, plain.whole_step, plain.direction) == (False, False, "everywhere")
    assert (margin.coupled, margin.whole_step, margin.direction) == (True, True, "at_reference")
    assert made.whole_step, "until it is known, a step is not split"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"stop_gradient": True}, "stop_gradient must be words that say what is held constant"),
        ({"moving_reference": ("mix",)}, "moving_reference must be the names of two settings"),
        ({"disagreements": "they differ"}, "disagreements must be a tuple of sentences"),
        ({"at_reference": "0.7"}, "at_reference must be a finite number"),
        ({"at_reference": math.nan}, "at_reference must be a finite number"),
        ({"direction": "sometimes"}, "direction must be one of its three words"),
        ({"status": "sure"}, "status must be verified, derived or unknown"),
        ({"source": None}, "source must be words"),
        ({"grid": {"mix": 0.1}}, "grid must be a tuple of values"),
        ({"bounds": {"mix": (0, 1)}}, "bounds must be an interval"),
        ({"only_for": ["reference"]}, "only_for must be such as"),
        ({"coupled": "yes"}, "coupled must be true, false or a function"),
    ],
)
def test_a_description_of_the_wrong_kind_is_refused(words: dict[str, Any], complaint: str) -> None:
    with pytest.raises(RequestError, match=f"method 'shaped': {complaint}"):
        method(**{**SHAPED, **words})(shaped)
