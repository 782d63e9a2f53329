"""Methods as Markdown: the page docs/methods.md, and the section of one method."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from harness.commands.facts import LETTERS, docstring, facts, reads, settings
from harness.contracts.method import Method

_CODE = re.compile(r"(`+[^`]+`+)")
_MARKUP = re.compile(
    r"""[\\*|~$`]                       # emphasis, cells of a table, mathematics, code
    | (?<![^\W_])_ | _(?![^\W_])       # emphasis at the edge of a word
    | <(?=[A-Za-z/!?]) | &(?=[#\w]+;) | \](?=[(\[:])
    | ^(?: [-+] | \#+ | \d+[.)] )(?=\s) | ^>    # a list, a heading, a quotation
    """,
    re.VERBOSE,
)
_PAPER = re.compile(r"arXiv:(\d{4}\.\d{4,5})")


def page(methods: Iterable[Method]) -> str:
    """All methods: what the letters mean, an overview, a section each."""
    methods = sorted(methods, key=lambda method: method.name)
    parts = [_intro(), _overview(methods), *map(section, methods)]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def section(method: Method) -> str:
    """One method, under a heading of the second level."""
    return "\n\n".join(_blocks(method)) + "\n"


def _intro() -> str:
    letters = "\n".join(f"* {code(letter)}: {prose(said)}" for letter, said in LETTERS.items())
    return f"""# Methods

Written by `harness show --markdown > docs/methods.md`; a test fails where the registry says
something else. `harness show NAME` prints the same of one method, also of an installed one or of a
file such as `./mine.py`. `docs/add-a-method.md` says how to write one, and explains the words.

A formula is the loss of one pair; w is the chosen answer and l the rejected one. Its letters:

{letters}

Other letters are settings by their names, or are explained beside the formula."""


def _overview(methods: Sequence[Method]) -> str:
    rows = [
        (
            f"[{prose(m.name)}](#{m.name})", prose(m.summary), ", ".join(map(code, m.parameters)),
            "yes" if m.narrowed().coupled else "no", m.status,
        )
        for m in methods
    ]  # fmt: skip
    return table(("method", "what it is", "reads", "coupled", "confidence"), rows)


def _blocks(method: Method) -> Iterator[str]:
    said = docstring(method.loss)
    yield f"## {prose(method.name)}"
    yield from map(prose, said.paragraphs)
    if method.formula:
        yield f"Formula: {code(method.formula)}"
    if said.returns:
        yield f"Returns: {prose(said.returns)}"
    yield "\n".join(f"* reads {code(name)}: {prose(text)}" for name, text in reads(method).items())
    if rows := settings(method):
        yield table(
            ("setting", "default", "allowed", "worth trying", "meaning"),
            [
                (code(r.name), code(r.default), prose(r.allowed), prose(r.tried), prose(r.meaning))
                for r in rows
            ],
        )
    yield "\n".join(f"* {name}: {prose(text)}" for name, text in facts(method).items())
    if method.disagreements:
        bullets = "\n".join(f"* {prose(sentence)}" for sentence in method.disagreements)
        yield f"Where sources disagree:\n\n{bullets}"


def prose(text: str) -> str:
    """Text within a line of Markdown: backticks make code, a paper is a link, all else stays."""
    parts = _CODE.split(text)
    parts[::2] = [_MARKUP.sub(lambda m: f"{m[0][:-1]}\\{m[0][-1]}", part) for part in parts[::2]]
    parts[::2] = [_PAPER.sub(r"[\g<0>](https://arxiv.org/abs/\1)", part) for part in parts[::2]]
    return "".join(parts)


def code(text: str) -> str:
    """Text as code, whatever it holds."""
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    return f"{fence}{text}{fence}" if len(fence) == 1 else f"{fence} {text} {fence}"


def table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown; a bar ends a cell even in code, unless it is escaped."""
    lines = [titles, ["---"] * len(titles), *rows]
    cells = [[re.sub(r"(?<!\\)\|", r"\|", cell) or " " for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
