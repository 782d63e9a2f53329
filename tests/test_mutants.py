"""The suite itself: each wrong method in `mutants/` is caught by the check that is there for it."""

import ast
from pathlib import Path

import pytest

from harness.conformance.suite import CHECKS, check_method

MUTANTS = sorted((Path(__file__).parent / "mutants").glob("*.py"))


def caught_by(file: Path) -> str:
    """What a mutant says must catch it, read from its text: some cannot be imported."""
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "CAUGHT_BY":
            return str(ast.literal_eval(node.value))
    raise AssertionError(f"{file} does not say what must catch it")


@pytest.mark.parametrize("file", MUTANTS, ids=lambda file: file.stem)
def test_a_mutant_is_caught_by_the_check_that_it_names(file):
    report = check_method(str(file))
    failed = {finding.check: finding for finding in report.failed}
    assert caught_by(file) in failed, f"it failed only: {sorted(failed) or 'nothing'}"
    finding = failed[caught_by(file)]
    assert finding.expected
    assert finding.came
    assert finding.trap


def test_there_are_at_least_thirty_mutants():
    assert len(MUTANTS) >= 30


def test_every_check_catches_a_mutant():
    assert {check.id for check in CHECKS} == {caught_by(file) for file in MUTANTS}


def test_every_mutant_tells_its_defect():
    silent = [
        file.stem
        for file in MUTANTS
        if not ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert not silent
