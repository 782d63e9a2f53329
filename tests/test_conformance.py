"""Every registered method keeps the laws; what breaks one is told, and troubles nobody else."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

from harness.cli import main
from harness.commands.check import told
from harness.conformance.alternatives import alternatives, corners, forms
from harness.conformance.cases import at_reference, cast, draw, padded, renumbered, rows, shifted
from harness.conformance.engine import HELD_OUT, STEPS, trained, world
from harness.conformance.findings import Report
from harness.conformance.subject import Subject
from harness.conformance.suite import CHECKS, check_method
from harness.contracts.method import READS
from harness.registry import found, load_method

torch.set_num_threads(1)  # matrices this small are slower on two

HEAD = """
import torch
from torch.nn.functional import logsigmoid

from harness.api import PairLogProbs, PerPair, State, method

SEEN = []
"""

# A method in which nothing is wrong: the others below differ from it in one place.
RIGHT = '''
@method(source="own work", bounds={"beta": "(0, inf)"})
def right(policy: PairLogProbs, *, beta: float = 2.0) -> PerPair:
    """Right: logistic loss of the gap of mean log-probs, one per pair, in nats."""
    gap = beta * (policy.chosen.mean() - policy.rejected.mean())
    return -logsigmoid(gap)
'''

STATEFUL = '''
@method(source="own work", initial={"mean": 0.0}, coupled=True, stop_gradient="the mean")
def right(policy: PairLogProbs, state: State) -> tuple[PerPair, State]:
    """Right: gap of mean log-probs against its running mean, one loss per pair, in nats."""
    gap = policy.chosen.mean() - policy.rejected.mean()
    mean = 0.9 * state["mean"] + 0.1 * gap.detach().double().mean()
    return -logsigmoid(gap - mean.to(gap)), {"mean": mean}
'''


def plugin(folder: Path, name: str, text: str = RIGHT, old: str = "", new: str = "") -> str:
    """Path of a plug-in of this name, with one piece of the text replaced."""
    assert old in text
    file = folder / f"{name}.py"
    body = text.replace(old, new) if old else text
    file.write_text(HEAD + textwrap.dedent(body).replace("def right(", f"def {name}("))
    return str(file)


def failing(report: Report) -> set[str]:
    return {finding.check for finding in report.failed}


# ---- The registry


@pytest.mark.parametrize("name", found("methods"))
def test_a_registered_method_keeps_every_law(name: str) -> None:
    report = check_method(name)
    assert not report.failed, told(report)
    assert report.name == name
    assert [finding.check for finding in report.findings] == [check.id for check in CHECKS]
    assert all(finding.came for finding in report.skipped)


def test_checks_have_distinct_names_and_say_which_trap_they_are_for() -> None:
    assert len({check.id for check in CHECKS}) == len(CHECKS)
    assert all(check.trap for check in CHECKS)


@pytest.mark.parametrize("text", [RIGHT, STATEFUL], ids=["stateless", "stateful"])
def test_a_right_plug_in_by_path_keeps_every_law(tmp_path: Path, text: str) -> None:
    report = check_method(plugin(tmp_path, "mine", text))
    assert not report.failed, told(report)
    assert report.name == "mine"


# ---- Bad plug-ins


class Bad(NamedTuple):
    """One bad piece in a right plug-in, the check that it must fail, and what the check says."""

    old: str
    new: str
    check: str
    came: str
    text: str = RIGHT


LOSS = "-logsigmoid(gap)"
BAD = {
    "raises at import": Bad("\n@method", "1 / 0\n@method", "loads", "ZeroDivisionError"),
    "unknown input": Bad("policy: PairLogProbs,", "policy: PairLogProbs, refrence: PairLogProbs,",
                         "loads", "input of method 'bad' 'refrence': did you mean 'reference'"),
    "default out of bounds": Bad('"(0, inf)"', '"(3, inf)"', "loads", r"in \(3, inf\), not 2.0"),
    "a column": Bad(LOSS, f"{LOSS}[:, None]", "shape", r"shape \[6, 1\]"),
    "a scalar": Bad(LOSS, f"{LOSS}.mean()", "shape", r"shape \[\]"),
    "a list": Bad(LOSS, f"[{LOSS}]", "shape", "type list"),
    "half precision": Bad(LOSS, f"{LOSS}.half()", "shape", "float16"),
    "an error": Bad(LOSS, "gap.undefined", "shape", r"AttributeError.*bad\.py, line 13"),
    "no next state": Bad(', {"mean": mean}', "", "shape", "type Tensor", STATEFUL),
    "0/0": Bad(LOSS, f"{LOSS} * gap / gap", "finite", "nan"),
    "log of 0": Bad(LOSS, "-torch.sigmoid(gap).log()", "finite", "inf"),
    "no gradient": Bad(LOSS, f"{LOSS}.detach()", "gradient-exists", "0 for all"),
    "no gradient on one side": Bad("policy.rejected.mean()", "policy.rejected.mean().detach()",
                                   "gradient-exists", "0 for all"),
    "inputs in place": Bad("gap = ", "policy.chosen.values.clamp_(max=-0.1); gap = ",
                           "inputs-untouched", "changed in place"),
    "state in place": Bad("mean = ", 'state["mean"].add_(1.0); mean = ', "inputs-untouched",
                          "in place", STATEFUL),
    "state mapping": Bad('{"mean": mean}', "state.update(mean=mean) or state", "inputs-untouched",
                         "make a new one", STATEFUL),
    "a global memory": Bad("gap = ", "SEEN.append(1); gap = len(SEEN) * ", "repeatable", r"\["),
    "global random numbers": Bad("gap = ", "gap = torch.rand(1).double() * ", "repeatable", r"\["),
    "a global seed": Bad("gap = ", "torch.manual_seed(0); gap = ", "repeatable", "moved"),
    "no source": Bad('source="own work"', 'source=" "', "described", "none"),
    "the wrong sign": Bad(LOSS, LOSS[1:], "direction", "by the log-prob of a chosen token"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_plug_in_is_told_by_check_expectation_and_trap(tmp_path: Path, what: str) -> None:
    old, new, check, came, text = BAD[what]
    report = check_method(plugin(tmp_path, "bad", text, old, new))
    finding = next(finding for finding in report.findings if finding.check == check)
    assert finding.status == "failed", told(report)
    assert finding.expected
    assert finding.trap
    assert re.search(came, finding.came), finding.came


def test_a_plug_in_that_does_not_load_is_told_with_its_file_and_nothing_else_is_checked(
    tmp_path: Path,
) -> None:
    path = plugin(tmp_path, "bad", RIGHT, "\n@method", "1 / 0\n@method")
    report = check_method(path)
    assert failing(report) == {"loads"}
    assert f"{path}, line " in report.failed[0].came
    assert {finding.status for finding in report.findings[1:]} == {"skipped"}


def test_a_loss_that_cannot_be_evaluated_fails_once_and_not_in_every_check(tmp_path: Path) -> None:
    report = check_method(plugin(tmp_path, "bad", RIGHT, "-logsigmoid(gap)", "1 / 0"))
    assert failing(report) == {"shape"}
    assert "ZeroDivisionError" in report.failed[0].came


def test_a_failing_plug_in_leaves_the_others_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = [
        plugin(tmp_path, "one", RIGHT, "\n@method", "raise SystemExit(3)\n@method"),
        plugin(tmp_path, "two", RIGHT, "gap = ", "torch.manual_seed(0); gap = "),
    ]
    assert main(["check", bad[0], "simper", bad[1]]) == 1
    said = capsys.readouterr().out
    assert "SystemExit: 3" in said
    assert any(
        line.startswith("simper") and "FAILED" not in line and "skipped" in line
        for line in said.splitlines()
    )
    assert "1 of 3 methods keep all laws" in said


def test_global_random_numbers_are_as_they_were(tmp_path: Path) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    check_method(plugin(tmp_path, "mine"))
    assert torch.equal(before, torch.get_rng_state())


# ---- The command


def test_a_green_method_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "simper"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert len(said) == 1
    assert said[0].startswith("simper")


def test_a_failure_is_told_in_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = plugin(tmp_path, "bad", RIGHT, "-logsigmoid(gap)", "logsigmoid(gap)")
    assert main(["check", path]) == 1
    said = capsys.readouterr().out
    for words in (
        "FAILED  direction",
        "trap:",
        "the sign of the gradient; chosen and rejected swapped",
        "expected:",
        "came:",
        "it reads no state",
    ):
        assert words in said
    assert max(map(len, said.splitlines())) <= 100


def test_every_finding_is_there_for_a_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = plugin(tmp_path, "bad", RIGHT, "-logsigmoid(gap)", "logsigmoid(gap)")
    assert main(["check", "--json", "simper", path]) == 1
    reports = json.loads(capsys.readouterr().out)["methods"]
    assert [report["name"] for report in reports] == ["simper", "bad"]
    assert [report["status"] for report in reports] == ["passed", "failed"]
    for report in reports:
        assert [finding["check"] for finding in report["findings"]] == [c.id for c in CHECKS]
    wrong = [f for f in reports[1]["findings"] if f["status"] == "failed"]
    assert all(f["expected"] and f["came"] and f["trap"] for f in wrong)


@pytest.mark.parametrize(
    ("name", "why"),
    [("simp0", "did you mean 'simpo'"), ("./nowhere.py", "no file './nowhere.py'")],
)
def test_a_request_that_cannot_be_understood_is_refused_before_anything_is_checked(
    name: str, why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "simper", name]) == 2
    said = capsys.readouterr()
    assert why in said.err
    assert said.out == ""


def test_all_is_every_method_that_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    from harness.commands.check import _named

    assert _named(["all"]) == list(found("methods"))
    assert _named(["dpo", "all", "dpo"])[0] == "dpo"
    assert len(_named(["dpo", "all"])) == len(found("methods"))


# ---- Inputs and settings that the checks use


def test_drawn_inputs_are_possible_ones_and_cover_the_vocabulary() -> None:
    case = draw(6, 3, apart=0.7)
    assert set(case.inputs) == set(READS) - {"state", "rng"}
    for side in ("chosen", "rejected"):
        mask = getattr(case.policy, side).mask
        for name in ("policy", "reference", "confidence", "entropy", "divergence"):
            assert torch.equal(getattr(case.inputs[name], side).mask, mask)
            numbers = getattr(case.inputs[name], side).values[mask]
            assert bool((numbers > 0).all() if name in ("entropy", "divergence") else
                        (numbers < 0).all())  # fmt: skip
    chosen, rejected = case.inputs["rewards"]
    assert torch.equal(chosen - rejected, case.inputs["margin"])
    assert case.policy.chosen.length.tolist() != case.policy.rejected.length.tolist()


def test_moved_answers_have_the_log_ratio_that_was_asked_for() -> None:
    plain = at_reference(draw(4, 1))
    moved = shifted(plain, 100.0, -1000.0)
    chosen = moved.policy.chosen.total() - moved.reference.chosen.total()
    rejected = moved.policy.rejected.total() - moved.reference.rejected.total()
    torch.testing.assert_close(chosen, torch.full_like(chosen, 100.0))
    torch.testing.assert_close(rejected, torch.full_like(rejected, -1000.0))
    for side in (moved.policy.chosen, moved.reference.chosen, moved.policy.rejected):
        assert bool((side.values <= 0).all())


def test_padding_and_choice_of_rows_keep_the_numbers() -> None:
    case = draw(5, 2)
    wide = padded(case, (2, 3), (0, 1))
    for side, more in (("chosen", 5), ("rejected", 1)):
        widths = [getattr(c.policy, side).mask.shape[1] for c in (wide, case)]
        assert widths[0] == widths[1] + more
    assert not bool(wide.policy.chosen.values[~wide.policy.chosen.mask].isfinite().any())
    torch.testing.assert_close(wide.policy.chosen.total(), case.policy.chosen.total())
    other = renumbered(case, 9, [0, 4])
    changed = (other.policy.chosen.total() != case.policy.chosen.total()).tolist()
    assert changed == [True, False, False, False, True]
    assert torch.equal(other.policy.chosen.mask, case.policy.chosen.mask)
    some = rows(case, [3, 1])
    assert torch.equal(some.inputs["margin"], case.inputs["margin"][[3, 1]])
    narrow = cast(case, torch.bfloat16, torch.float32)
    assert narrow.policy.chosen.values.dtype == torch.bfloat16
    assert narrow.inputs["margin"].dtype == torch.float32


def test_other_settings_are_valid_and_not_the_default(tmp_path: Path) -> None:
    text = '''
    from typing import Literal

    @method(source="own work", bounds={"beta": "(0, 3]", "cap": "[0, inf)"})
    def right(policy: PairLogProbs, *, beta: float = 2.0, steps: int = 4, on: bool = True,
              form: Literal["a", "b", "c"] = "a", cap: float | None = None) -> PerPair:
        """Right."""
        return policy.rejected.mean() - policy.chosen.mean()
    '''
    method = load_method(plugin(tmp_path, "mine", text))
    for key, default in method.defaults.items():
        values = alternatives(method, key)
        assert values
        assert default not in values
        for value in values:
            method.resolve({key: value})
    assert 3.0 in alternatives(method, "beta")
    assert 4.0 not in alternatives(method, "beta")
    assert {"on": False} in forms(method)
    assert [change["form"] for change in forms(method) if "form" in change] == ["b", "c"]
    assert len([change for change in forms(method) if "cap" in change]) == 1
    assert corners(method) == [{"beta": 3.0}]


def test_a_subject_reads_what_its_settings_leave(tmp_path: Path) -> None:
    text = '''
    @method(source="own work", only_for={"reference": {"anchored": (True,)}})
    def right(policy: PairLogProbs, reference: PairLogProbs, *, anchored: bool = True) -> PerPair:
        """Right."""
        gap = policy.chosen.mean() - policy.rejected.mean()
        return -logsigmoid(gap - (reference.chosen.mean() if anchored else 0.0))
    '''
    method = load_method(plugin(tmp_path, "mine", text))
    assert Subject.of(method).reads == ("policy", "reference")
    free = Subject.of(method, {"anchored": False})
    assert free.reads == ("policy",)
    assert free.words == "anchored=False"
    slopes = free.slopes(draw(3, 0))
    assert set(slopes.by) == {"policy"}
    torch.testing.assert_close(slopes.losses, free(draw(3, 0)).losses)


# ---- The engine's checks


def calls(folder: Path, **how: bool) -> list[bool]:
    """Whether a graph was wanted, call by call, of a loss that is trained for all steps."""
    path = plugin(folder, "mine", RIGHT, "gap = ", "SEEN.append(torch.is_grad_enabled()); gap = ")
    method = load_method(path)
    trained(Subject.of(method), **how)
    seen: list[bool] = method.loss.__globals__["SEEN"]
    return seen


def test_held_out_pairs_are_evaluated_before_every_step(tmp_path: Path) -> None:
    # Steps of three pairs are split into micro-batches of two.
    assert calls(tmp_path) == [True] * 2 * len(STEPS)
    assert calls(tmp_path, evaluated=True) == [False, True, True] * len(STEPS)


def test_a_killed_run_goes_on_and_makes_every_step_once(tmp_path: Path) -> None:
    assert calls(tmp_path, killed=True) == [True] * 2 * len(STEPS)


def test_training_moves_weights_and_memory(tmp_path: Path) -> None:
    subject = Subject.of(load_method(plugin(tmp_path, "mine", STATEFUL)))
    found = trained(subject)
    start = dict(world().policy.named_parameters())
    assert all(not torch.equal(found.weights[name], start[name]) for name in start)
    assert float(found.state["mean"]) != 0
    assert len(found.losses) == len(STEPS)
    assert not {*HELD_OUT} & {row for rows in STEPS for row in rows}
