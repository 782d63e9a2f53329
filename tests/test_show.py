"""What `harness show` says of a method or a task, and the page that is made of it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from harness.cli import main
from harness.commands.facts import docstring, word
from harness.registry import found

from .command import harness, written

ROOT = Path(__file__).parents[1]

ODD = '''
from typing import Literal

from harness.api import PairLogProbs, PerPair, State, method


@method(
    source="arXiv:2401.00001, Eq. 3; some_body/some_code run.py:1-2 @abc",
    formula="sg[|h_w|] * x_ - y_ * log(`L_w`)",
    grid={"beta": (0.1, 1 / 3), "ceiling": (2.0, None)},
    bounds={"beta": "(0, 1)", "every": "[1, inf)", "ceiling": "[0, 9]"},
    status="derived",
    disagreements=("The code has |x| * y, the paper *x* [1](2).", "TRL has `none`."),
    coupled=True,
    initial={"queue": (0.0,) * 7, "steps": 0.0},
    at_reference=lambda s: 0.25 if s["form"] == "one" else None,
    stop_gradient="the length _l_",
    direction="at_reference",
    only_for={
        "reference": {"form": ("one", "two"), "whole": (True,)},
        "state": {"form": ("three",)},
    },
    moving_reference=("beta", "every"),
)
def odd(
    policy: PairLogProbs,
    reference: PairLogProbs | None,
    state: State | None,
    *,
    beta: float = 0.125,
    every: int = 12,
    ceiling: float | None = None,
    whole: bool = False,
    form: Literal["one", "two", "three"] = "one",
) -> PerPair:
    """Odd: a | loss * of <everything> _at_ once.

    Second paragraph, about |h| * x and
    a line that goes on.

    Args:
        policy: log-probs.
        beta: what | beta, or `|beta|`,
            is.

    Returns:
        One loss
        per pair.
    """
    return policy.chosen.total()
'''

TASK = '''
from harness.api import task


@task(variants=("high", "low"))
def chores(*, words: int = 3):
    """Chores: a task that cannot run.

    Args:
        words: how many
            there are.
    """
'''


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    (tmp_path / "odd.py").write_text(ODD)
    return tmp_path / "odd.py"


@pytest.fixture
def shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., str]:
    """What `harness show` prints in a terminal of so many columns."""

    def show(*arguments: str | Path, columns: int = 80) -> str:
        monkeypatch.setenv("COLUMNS", str(columns))
        status = main(["show", *map(str, arguments)])
        out, err = capsys.readouterr()
        assert (status, err) == (0, "")
        return out

    return show


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize(
    "sentence",
    [
        "Odd: a | loss * of <everything> _at_ once. Second paragraph, about |h| * x and a line that"
        " goes on.",
        "returns One loss per pair.",
        "formula sg[|h_w|] * x_ - y_ * log(`L_w`) L_w, L_l number of response tokens h_w, h_l"
        " log-ratio, h = s - r sg[.] held constant: no gradient passes",
        "only for form one or two, or whole true state",
        "only for form three; not at the defaults",
        "beta = 0.125; in (0, 1); worth trying: 0.1, 0.333333 what | beta, or `|beta|`, is.",
        "every = 12; in [1, inf) ceiling = none; in [0, 9] or none; worth trying: 2.0, none",
        "whole = false; true or false form = one; one of one, two, three",
        "source arXiv:2401.00001, Eq. 3; some_body/some_code run.py:1-2 @abc confidence derived;",
        "coupled yes; a pair's loss depends on the other pairs of its step",
        "state queue 0 in 7 places, steps 0 before the first step",
        "stop-gradient the length _l_",
        "direction at the reference the gradient widens the gap;",
        "at reference loss 0.25 at the defaults; it depends on settings",
        "moving reference yes; after each every = 12 steps it becomes beta * policy + (1 - beta) *"
        " reference in its weights, with beta = 0.125",
        "- The code has |x| * y, the paper *x* [1](2). - TRL has `none`.",
    ],
)
def test_all_that_a_method_declares_is_shown(
    odd: Path, shown: Callable[..., str], sentence: str
) -> None:
    assert sentence in words(shown(odd))


def test_what_a_method_does_not_declare_is_said_to_be_absent(shown: Callable[..., str]) -> None:
    text = words(shown("simpo"))
    assert "coupled no; a pair's loss is its own state none stop-gradient none of its own" in text
    assert "at reference no fixed loss" in text
    assert "reference policy" not in text


@pytest.mark.parametrize("columns", [60, 80, 120, 300])
def test_lines_are_as_wide_as_the_terminal_and_never_too_wide_to_read(
    shown: Callable[..., str], odd: Path, columns: int
) -> None:
    for name in (*found("methods"), *found("tasks"), odd):
        for line in shown(name, columns=columns).splitlines():
            assert len(line) <= min(columns, 100) or len(line.split()) <= 2, line


def test_a_task_is_shown_by_name_and_by_path(shown: Callable[..., str], tmp_path: Path) -> None:
    assert "sentiment-high, sentiment-medium, sentiment-low" in words(shown("sentiment"))
    (tmp_path / "chores.py").write_text(TASK)
    assert words(shown(tmp_path / "chores.py")).endswith(
        "boards chores-high, chores-low settings, as in --set chores.words=3 words = 3 how many"
        " there are."
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "show what?"),
        (["dpoo"], "did you mean 'dpo'"),
        (["sentiment", "--markdown"], "'sentiment' is a task"),
        (["./nowhere.py"], "nowhere.py"),
    ],
)
def test_what_cannot_be_shown_is_refused(
    capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(["show", *arguments]) == 2
    assert said in capsys.readouterr().err


# The page


def test_the_page_of_methods_is_what_the_registry_says(shown: Callable[..., str]) -> None:
    page = ROOT / "docs" / "methods.md"
    same = page.is_file() and page.read_text(encoding="utf-8") == shown("--markdown")
    assert same, "docs/methods.md is stale: run `harness show --markdown > docs/methods.md`"


def test_the_page_has_every_method_of_this_project_once_and_in_order(
    shown: Callable[..., str],
) -> None:
    page = shown("--markdown")
    built_in = [name for name, plugin in found("methods").items() if plugin.origin == "built in"]
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == built_in
    assert re.findall(r"^\| \[(\w+)\]\(#\1\)", page, re.MULTILINE) == built_in


def test_the_page_is_the_same_on_any_machine(tmp_path: Path, shown: Callable[..., str]) -> None:
    installed = tmp_path / "others-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: others\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text("[harness.methods]\nother = other:other\n")
    here = tmp_path / "here"
    here.mkdir()
    (here / "odd.py").write_text(ODD)
    page = shown("--markdown", columns=40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
        patch.setenv("PYTHONHASHSEED", "7")
        assert "other " in harness(here, "list", "methods").stdout
        assert harness(here, "show", "--markdown").stdout == page
    assert written(here) == ["odd.py"]
    assert str(ROOT) not in page


def test_the_section_of_one_method_is_that_of_the_page(shown: Callable[..., str]) -> None:
    assert shown("madpo", "--markdown") in shown("--markdown")


def test_no_character_of_a_method_is_taken_for_markup(odd: Path, shown: Callable[..., str]) -> None:
    html = MarkdownIt("commonmark").enable("table").render(shown(odd, "--markdown"))
    assert "Odd: a | loss * of &lt;everything&gt; _at_ once." in html
    assert "<code>sg[|h_w|] * x_ - y_ * log(`L_w`)</code>" in html
    assert "The code has |x| * y, the paper *x* [1](2)." in html
    assert "<td>what | beta, or <code>|beta|</code>, is.</td>" in html
    assert "TRL has <code>none</code>." in html
    assert '<a href="https://arxiv.org/abs/2401.00001">arXiv:2401.00001</a>, Eq. 3' in html
    assert "<em>" not in html
    for row in re.findall(r"<tr>.*?</tr>", html, re.DOTALL):
        assert len(re.findall(r"<t[dh]>", row)) == 5


def test_no_row_of_the_page_has_too_few_or_too_many_cells(shown: Callable[..., str]) -> None:
    html = MarkdownIt("commonmark").enable("table").render(shown("--markdown"))
    assert {len(re.findall(r"<t[dh]>", row)) for row in html.split("<tr>")[1:]} == {5}
    assert not re.search(r"<(em|strong|blockquote|ol|pre|hr|h[3-6])\b", html)


# Words


def test_a_docstring_is_taken_apart() -> None:
    def one() -> None:
        """First.

        Args:
            lone: begins here
                and goes on: here.

        Raises:
            Error: never shown.
        """

    said = docstring(one)
    assert (said.paragraphs, said.returns) == (["First."], "")
    assert said.arguments == {"lone": "begins here and goes on: here."}
    assert docstring(lambda: None).paragraphs == []


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (2.0, "2.0"), (1 / 3, "0.333333"), (0.1, "0.1"), (1e-10, "1e-10"), (7, "7"), (True, "true"),
        (None, "none"), ("mean", "mean"),
    ],
)  # fmt: skip
def test_a_value_is_short(value: object, said: str) -> None:
    assert word(value) == said  # type: ignore[arg-type]
