"""The files of a board: the same bytes every time, readable by others, and safe to open."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from markdown_it import MarkdownIt

from harness.board.compute import build
from harness.board.files import write
from harness.board.text import markdown, markdown_line
from harness.scores import Run, Scores, read_scores, write_scores

TASKS = ("sentiment-high", "sentiment-low")
HOSTILE = "<script>alert(1)</script>|`x`\n# h\u202e\x1b[31m [a](http://b) *c* __d__ {{7*7}} &amp;"
parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])


class Page(HTMLParser):
    """The text of a page, its elements and the content of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text, self.elements, self.scripts = "", [], []
        self.inside = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.inside = tag

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside == "script":
            self.scripts.append(data)
        else:
            self.text += data


def hostile(make, name=HOSTILE):
    """A board in which every text that comes from outside is `name`."""
    scores = make({"dpo": 0.5, name: 0.9, "bad": 0.1}, base="bad")
    metrics = tuple(
        replace(m, name=name, unit=name, meaning=name) if m.name == "reward" else m
        for m in scores.header.tasks[0].metrics
    )
    task = replace(scores.header.tasks[0], name=name, primary=name, metrics=metrics)
    lost = Run(name, f"lost {name}", name, 0, "failed", name)
    header = replace(
        scores.header, experiment=name, command=name, notes=(name,), versions={name: name},
        budget={name: {name: name}}, tasks=(task,),
        runs=(*(replace(r, task=name) for r in scores.header.runs), lost),
    )  # fmt: skip
    frame = scores.frame.assign(task=name)
    return build(Scores(header, frame.assign(metric=frame.metric.replace("reward", name))))


def same(row, *names):
    return pytest.approx([row[name] for name in names], rel=1e-12)


def read(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_a_board_has_all_its_files_and_nothing_else(make, tmp_path):
    written = write(build(make(tasks=TASKS)), tmp_path)
    assert sorted(read(tmp_path)) == sorted(str(p.relative_to(tmp_path)) for p in written)
    assert sorted(read(tmp_path)) == [
        "index.html", "leaderboard.csv", "leaderboard.json", "leaderboard.md", "pairwise.csv",
        "plots/sentiment-high-reward-kl.svg", "plots/sentiment-low-reward-kl.svg",
    ]  # fmt: skip


def test_building_again_gives_the_same_bytes(make, tmp_path):
    scores = make(tasks=TASKS, notes=("A note.",))
    write(build(scores), tmp_path / "first")
    shuffled = scores.frame.sample(frac=1, random_state=1)
    write(build(Scores(scores.header, shuffled)), tmp_path / "shuffled")
    write_scores(tmp_path / "scores.parquet", Scores(scores.header, shuffled))
    write(build(read_scores(tmp_path / "scores.parquet")), tmp_path / "stored")
    first = read(tmp_path / "first")
    assert read(tmp_path / "shuffled") == first
    assert read(tmp_path / "stored") == first
    write(build(scores), tmp_path / "stored")
    assert read(tmp_path / "stored") == first


def test_a_failed_write_leaves_the_old_file_whole(make, tmp_path, monkeypatch):
    write(build(make()), tmp_path)
    before = read(tmp_path)

    def full(*_args):
        raise OSError("no space left on device")

    monkeypatch.setattr("harness.files.os.replace", full)
    with pytest.raises(OSError, match="no space"):
        write(build(make(seeds=2)), tmp_path)
    assert read(tmp_path) == before


def test_the_tables_say_the_same_as_the_tree(make, tmp_path):
    run = Run("sentiment-low", "madpo", "default", 1, "diverged", "loss became NaN")
    write(build(make(tasks=TASKS, runs=[run])), tmp_path)
    tree = json.loads((tmp_path / "leaderboard.json").read_text())
    table = pd.read_csv(tmp_path / "leaderboard.csv")
    assert tree["schema_version"] == 1
    assert len(table) == sum(len(t["rows"]) + len(t["unranked"]) for t in tree["tasks"]) == 10
    for task in tree["tasks"]:
        here = table[table.task == task["name"]].set_index("label")
        for row in task["rows"]:
            flat, reward = here.loc[row["label"]], row["metrics"]["reward"]
            assert [flat["mean"], flat.low, flat.high] == same(reward, "value", "low", "high")
            assert [flat.rank_first, flat.rank_last] == row["ranks"]
            assert flat.kl == pytest.approx(row["metrics"]["kl"]["value"])
            if row["difference"]:
                gap = [flat.difference, flat.difference_low, flat.difference_high, flat.p_holm]
                assert gap == same(row["difference"], "value", "low", "high", "p_holm")
            if row["cost"]:
                assert flat.flops == row["cost"]["flops"] == 1.23e12
    assert here.not_ranked["madpo"] == "seed 1 diverged: loss became NaN"
    pairs = pd.read_csv(tmp_path / "pairwise.csv")
    flat = [p for task in tree["tasks"] for p in task["pairs"]]
    assert list(pairs.value) == pytest.approx([p["value"] for p in flat], rel=1e-12)
    assert list(pairs.p_bh) == pytest.approx([p["p_bh"] for p in flat], rel=1e-12)


def test_files_hold_no_p_that_would_claim_an_order_from_one_seed(make, tmp_path):
    write(build(make(seeds=1)), tmp_path)
    tree = json.loads((tmp_path / "leaderboard.json").read_text())["tasks"][0]
    assert {pair["p"] for pair in tree["pairs"]} == {None}
    assert {row["ranks"] for row in tree["rows"]} == {None}
    table = pd.read_csv(tmp_path / "leaderboard.csv")
    assert table[["p", "p_holm", "rank_first", "ties"]].isna().all(axis=None)


def test_the_page_asks_nothing_of_any_other_machine(make, tmp_path):
    write(build(make(tasks=TASKS)), tmp_path)
    text = (tmp_path / "index.html").read_text()
    outside = text.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?://|src\s*=|@import|url\(", outside)
    page = Page(text)
    assert {dict(a).get("href", "#")[0] for tag, a in page.elements if tag == "a"} == {"#"}
    assert not {"link", "img", "iframe", "object"} & {tag for tag, _ in page.elements}


def test_only_the_script_of_this_page_may_run(make, tmp_path):
    write(build(make()), tmp_path)
    page = Page((tmp_path / "index.html").read_text())
    assert len(page.scripts) == 1
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    policy = next(a["content"] for _, a in page.elements if "http-equiv" in a)
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy


def test_text_from_outside_stays_text_on_the_page(make, tmp_path):
    write(hostile(make), tmp_path)
    text = (tmp_path / "index.html").read_text()
    page = Page(text)
    assert len(page.scripts) == 1
    assert [tag for tag, _ in page.elements].count("script") == 1
    assert "<script>alert(1)</script>|`x`\\n# h\\u202e\\x1b[31m" in page.text
    assert "{{7*7}} &amp;" in page.text
    assert not re.search("[\u202e\x1b]", text)
    assert not [a for _, attrs in page.elements for a in attrs if a.startswith("on")]


def test_text_from_outside_stays_text_in_markdown(make, tmp_path):
    write(hostile(make), tmp_path)
    text = (tmp_path / "leaderboard.md").read_text()
    assert not re.search("[\u202e\x1b]", text)
    lines = [line for line in text.splitlines() if not line.startswith("    ")]
    assert "://" not in "".join(lines)
    page = Page(parser.render(text))
    table = {"table", "thead", "tbody", "tr", "th", "td"}
    known = {"h1", "h2", "p", "pre", "code", "ul", "li", "blockquote", *table}
    assert {tag for tag, _ in page.elements} <= known
    assert [tag for tag, _ in page.elements].count("code") == 1
    shown = HOSTILE.replace("\n", "\\n").replace("\u202e", "\\u202e").replace("\x1b", "\\x1b")
    assert page.text.count(shown) > 10
    rows = re.findall("<tr>.*?</tr>", parser.render(text), re.DOTALL)
    widths = [len(re.findall("<t[hd]", row)) for row in rows]
    assert widths == [7] * 4 + [11] * 4


@pytest.mark.parametrize(
    "name",
    ["# h", "- x", "1. x", "[ ] x", "> x", "+ x", "===", "---", "[a]: http://b", "![a](http://b)",
     "a|b", "\\", "\\|", "*a*", "__a__", "~~a~~", "`", "<b>", "</b>", "<!-- x", "&lt;", "www.b.c"],
)  # fmt: skip
def test_no_text_becomes_markup(name):
    shown = parser.render(f"- {markdown_line(name)}\n\n| a |\n| - |\n| {markdown(name)} |\n")
    cells = re.findall(r"<(?:li|td)>(.*?)</(?:li|td)>", shown, re.DOTALL)
    assert [unescape(cell) for cell in cells] == [name, name]


@pytest.mark.parametrize("text", ["alpha_dpo", "beta=0.1", "-0.3 [-0.5, -0.1]", "<0.001", "f(1.5)"])
def test_plain_text_reads_plainly_in_markdown(text):
    assert markdown(text) == text


def test_every_plot_is_well_formed_and_holds_a_mark_per_row(make, tmp_path):
    write(hostile(make), tmp_path / "hostile")
    write(build(make()), tmp_path / "plain")
    for folder, rows, seeds in (("hostile", 3, 7), ("plain", 5, 13)):
        (path,) = (tmp_path / folder / "plots").iterdir()
        root = ElementTree.fromstring(path.read_bytes())
        space = "{http://www.w3.org/2000/svg}"
        groups = [g for g in root.iter(f"{space}g") if g.find(f"{space}title") is not None]
        assert len(groups) == rows
        assert len(list(root.iter(f"{space}circle"))) == seeds
        assert {element.tag.removeprefix(space) for element in root.iter()} <= {
            "svg", "style", "path", "text", "g", "circle", "title"
        }  # fmt: skip


def test_a_single_seed_lies_where_the_mean_of_its_row_does(make, tmp_path):
    write(build(make()), tmp_path)
    plot = (tmp_path / "plots" / "sentiment-high-reward-kl.svg").read_text()
    (seed,) = re.findall(r'class="seed base" cx="([\d.]+)" cy="([\d.]+)"', plot)
    mark = re.search(r'<g class="base"><title>.*?translate\(([\d.]+),([\d.]+)\)', plot)
    assert seed == mark.groups()


def test_all_pairs_stand_on_the_page_row_minus_column(make, tmp_path):
    board = build(make())
    write(board, tmp_path)
    text = (tmp_path / "index.html").read_text()
    table = re.search(r'<table class="pairs">.*?<tbody>(.*?)</tbody>', text, re.DOTALL)[1]
    shown = {
        (row.label, column.label): (kind, value)
        for row, cells in zip(board.tasks[0].rows, table.split("</tr>"), strict=False)
        for column, (kind, value) in zip(
            board.tasks[0].rows, re.findall(r'<td class="(\w*)".*?>(.*?)<', cells), strict=True
        )
    }
    for pair in board.tasks[0].pairs:
        size = f"{pair.estimate.value:+.3f}"
        other = f"{-pair.estimate.value:+.3f}"
        kinds = ("", "") if not pair.better else ("better", "worse")
        kinds = kinds if pair.better != pair.b else kinds[::-1]
        assert shown[pair.a, pair.b] == (kinds[0], size)
        assert shown[pair.b, pair.a] == (kinds[1], other)


def test_a_task_without_divergence_has_no_plot(make, tmp_path):
    scores = make()
    metrics = tuple(m for m in scores.header.tasks[0].metrics if m.name != "kl")
    header = replace(scores.header, tasks=(replace(scores.header.tasks[0], metrics=metrics),))
    frame = scores.frame[scores.frame.metric != "kl"]
    write(build(Scores(header, frame)), tmp_path)
    assert not (tmp_path / "plots").exists()


def test_no_name_of_a_task_leaves_the_folder_or_hides_another(make, tmp_path):
    write(build(make(tasks=("../../up", "-up", "/up"))), tmp_path / "board")
    assert len(list((tmp_path / "board" / "plots").iterdir())) == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == ["board"]
