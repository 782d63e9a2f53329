"""`harness new method`, and the page that leads from there to a board."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from harness.api import Method
from harness.cli import main
from harness.conformance.suite import CHECKS
from harness.contracts.method import DESCRIBED, READS
from harness.registry import load_method

from .command import environment, harness, written

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")
LONG = "a_method_with_quite_a_long_name_for_a_loss_2"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python_m(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment(), capture_output=True,
        text=True, check=False,
    )  # fmt: skip


def assert_passes(folder: Path, test: str) -> None:
    done = python_m(folder, "pytest", "-q", "-p", "no:cacheprovider", test)
    assert (done.returncode, "2 passed" in done.stdout) == (0, True), done.stdout


@pytest.mark.parametrize("name", ["mine", LONG])
def test_what_is_generated_is_a_method_whose_test_passes(here: Path, name: str) -> None:
    assert main(["new", "method", name]) == 0
    assert written(here) == sorted([f"{name}.py", f"test_{name}.py"])
    method = load_method(f"./{name}.py")
    assert (method.name, method.resolve()) == (name, {"beta": 0.1})
    assert_passes(here, f"test_{name}.py")


@pytest.mark.parametrize("name", ["mine", LONG])
def test_what_is_generated_is_as_ruff_would_have_it(here: Path, name: str) -> None:
    main(["new", "method", name])
    ours = ["--config", str(ROOT / "pyproject.toml")]
    for command in (
        ["check", "--isolated"], ["format", "--check", "--isolated", "--line-length", "100"],
        ["check", *ours, "--ignore", "D103"], ["format", "--check", *ours],
    ):  # fmt: skip
        done = python_m(here, "ruff", *command, "--no-cache", ".")
        assert done.returncode == 0, done.stdout


def test_what_is_generated_names_every_word_of_the_vocabulary(here: Path) -> None:
    main(["new", "method", "mine"])
    signature = (here / "mine.py").read_text().partition("def mine(")[2].partition(") ->")[0]
    assert set(READS) <= set(re.findall(r"\w+", signature))


def test_the_generated_test_sees_a_swap_of_the_answers(here: Path) -> None:
    main(["new", "method", "mine"])
    file = here / "mine.py"
    file.write_text(file.read_text().replace("(chosen - rejected)", "(rejected - chosen)"))
    assert python_m(here, "pytest", "-q", "test_mine.py").returncode == 1


def test_the_commands_that_are_printed_can_be_given_as_they_stand(
    tmp_path: Path,
) -> None:
    shown = harness(tmp_path, "new", "method", "mine", "--out", "a folder").stdout
    assert written(tmp_path / "a folder") == ["mine.py", "test_mine.py"]
    test, check, run = [
        shlex.split(line) for line in re.findall(r"^    (.*)$", shown, re.MULTILINE)
    ]
    assert (test[0], check[0], run[0]) == ("pytest", "harness", "harness")
    assert_passes(tmp_path, test[1])
    done = harness(tmp_path, *check[1:])
    assert done.returncode == 0, done.stdout
    done = harness(tmp_path, *run[1:], "--plan")
    assert (done.returncode, "train mine" in done.stdout) == (0, True), done.stderr


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Mine", "lower-case"),
        ("2nd", "lower-case"),
        ("my-loss", "lower-case"),
        ("_mine", "lower-case"),
        ("mine.py", "lower-case"),
        ("a/b", "lower-case"),
        ("größe", "lower-case"),
        ("", "lower-case"),
        ("lambda", "word of Python"),
        ("dpo", "there is a method 'dpo' already (built in)"),
        ("random", "module that others import"),
        ("torch", "module that others import"),
        ("taken", "taken.py is there already"),
        ("tested", "test_tested.py is there already"),
    ],
)
def test_a_name_that_will_not_do_is_refused_and_nothing_is_written(
    here: Path, capsys: pytest.CaptureFixture[str], name: str, said: str
) -> None:
    for file in ("taken.py", "test_tested.py"):
        (here / file).write_text("somebody's work")
    assert main(["new", "method", name]) == 2
    assert said in capsys.readouterr().err
    assert written(here) == ["taken.py", "test_tested.py"]
    assert (here / "taken.py").read_text() == "somebody's work"


def test_a_folder_that_cannot_be_written_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "file").write_text("no folder")
    assert main(["new", "method", "mine", "--out", "file"]) == 2
    assert "cannot write file/mine.py" in capsys.readouterr().err


# docs/add-a-method.md


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def examples() -> dict[str, str]:
    """Every method of the page as a file: the first brings its imports, the others share theirs."""
    first, imports, *others = blocks()
    sources = [first, *(f'"""An example."""\n\n{imports}\n\n{block}' for block in others)]
    return {re.findall(r"^def (\w+)", source, re.MULTILINE)[0]: source for source in sources}


def written_example(folder: Path, name: str) -> Method:
    (folder / f"{name}.py").write_text(examples()[name])
    return load_method(str(folder / f"{name}.py"))


def test_the_method_of_the_page_fits_fifteen_lines() -> None:
    assert len(blocks()[0].strip().splitlines()) <= 15


def test_the_page_leads_from_its_file_and_its_numbers_to_a_test_that_passes(here: Path) -> None:
    main(["new", "method", "savage"])
    written_example(here, "savage")
    test = here / "test_savage.py"
    rows = re.findall(r"^    (\({.*\),)$", PAGE, re.MULTILINE)
    old = re.findall(r"^ +\({.*\),$", test.read_text(), re.MULTILINE)
    assert len(rows) == len(old) == 2
    text = test.read_text().replace('"""\n\n', '"""\n\nimport math\n', 1)
    for before, after in zip(old, rows, strict=True):
        text = text.replace(before.strip(), after)
    test.write_text(text)
    assert_passes(here, "test_savage.py")


def test_every_method_of_the_page_is_what_it_says(tmp_path: Path) -> None:
    for name in examples():
        written_example(tmp_path, name)
    done = harness(tmp_path, "check", *(f"./{name}.py" for name in examples()))
    assert done.returncode == 0, done.stdout


def test_the_mistake_that_the_page_makes_is_caught_by_the_check_that_it_shows(
    tmp_path: Path,
) -> None:
    right, wrong = "policy.chosen.total()", "policy.chosen.values.sum(-1)"
    (tmp_path / "savage.py").write_text(examples()["savage"].replace(right, wrong))
    done = harness(tmp_path, "check", "./savage.py")
    failure = re.search(r"^  FAILED  padding\n.*\n", done.stdout, re.MULTILINE)
    assert failure, done.stdout
    assert wrong in PAGE
    assert failure[0] in PAGE


def test_every_check_that_the_page_explains_exists() -> None:
    rows = PAGE[PAGE.index("## When a check fails") :]
    named = {
        check
        for row in re.findall(r"^\| (`.*?) \|", rows, re.MULTILINE)
        for check in re.findall(r"`(\S+)`", row)
    }
    assert "padding" in named
    assert named <= {check.id for check in CHECKS}


def test_contributing_shows_the_same_method_as_the_page() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    assert textwrap.indent(blocks()[0], "   ") in contributing


def test_the_page_explains_every_word_of_the_vocabulary_and_no_other() -> None:
    rows = PAGE[PAGE.index("## What a loss may read") : PAGE.index("## What the decorator says")]
    assert re.findall(r"^\| `(\w+)` \|", rows, re.MULTILINE) == list(READS)


def test_the_page_explains_everything_that_the_decorator_takes() -> None:
    said = PAGE[PAGE.index("## What the decorator says") :]
    for word in DESCRIBED:
        assert re.search(rf"`{word}\b", said), word
