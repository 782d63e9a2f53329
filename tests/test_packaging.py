"""What ships, and that nothing is forgotten."""

from __future__ import annotations

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_every_folder_with_code_is_listed_as_a_package() -> None:
    folders = {p.parent for p in (ROOT / "harness").rglob("*.py")}
    folders |= {p.parent for name in ("methods", "tasks") for p in (ROOT / name).rglob("*.py")}
    names = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    names = {n if n.startswith("harness") else f"harness.{n}" for n in names}
    assert names == set(PROJECT["tool"]["setuptools"]["packages"])


def test_every_template_ships() -> None:
    data = PROJECT["tool"]["setuptools"]["package-data"]
    for path in (ROOT / "harness").rglob("*"):
        if path.is_file() and path.suffix not in (".py", ".pyc"):
            package = ".".join(path.parent.relative_to(ROOT).parts)
            assert any(path.match(pattern) for pattern in data.get(package, [])), path


def test_every_dependency_is_imported_somewhere() -> None:
    sources = [p for name in ("harness", "methods", "tasks") for p in (ROOT / name).rglob("*.py")]
    text = "\n".join(p.read_text(encoding="utf-8") for p in sources)
    for line in PROJECT["project"]["dependencies"]:
        name = line.split(">=")[0].split("[")[0].replace("-", "_")
        assert f"import {name}" in text or f"from {name}" in text, f"{name} is not used"


def test_plugins_are_not_top_level_packages_of_the_distribution() -> None:
    mapping = PROJECT["tool"]["setuptools"]["package-dir"]
    assert mapping == {
        "harness": "harness", "harness.methods": "methods", "harness.tasks": "tasks"
    }  # fmt: skip


def test_the_changelog_has_an_unreleased_section() -> None:
    assert "\n## Unreleased\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
