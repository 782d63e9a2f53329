"""The arrows of docs/architecture.md, read from the imports themselves."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A part may import the parts of its own level's list and everything below it; never upwards, and
# never a sibling of the stages' level.
BELOW: dict[str, set[str]] = {
    "errors": set(),
    "visible": set(),
    "records": {"errors"},
    "contracts": {"errors", "records"},
    "budget": set(),
    "backends": set(),
    "address": {"errors"},
    "files": {"errors"},
    "scores": {"contracts", "errors", "files"},
    "registry": {"contracts", "errors"},
    "store": {"errors"},
    "config_parts": {"backends", "budget", "contracts", "errors"},
    "config": {"backends", "budget", "config_parts", "contracts", "errors"},
    "data": {"contracts", "errors", "records", "registry", "store"},
    "engine": {"contracts", "data", "errors", "store"},
    "train": {"budget", "contracts", "data", "engine", "errors", "records", "registry", "store"},
    "conformance": {"contracts", "data", "engine", "errors", "registry", "train"},
    "generate": {
        "address", "backends", "contracts", "data", "engine", "errors", "records", "registry",
        "store", "train",
    },
    "stats": set(),
    "judge": {
        "address", "backends", "contracts", "data", "errors", "files", "records", "registry",
        "stats", "store",
    },
    "board": {"contracts", "errors", "files", "scores", "stats", "visible"},
    "api": {"contracts", "data", "errors", "judge", "records"},
    "pipeline": {
        "backends", "budget", "config", "contracts", "data", "errors", "generate", "judge",
        "registry", "store",
    },
    "estimate": {"judge", "pipeline", "store"},
    "notes": {"judge", "pipeline", "store"},
    "gather": {"contracts", "files", "judge", "notes", "pipeline", "scores", "store"},
    "execute": {"errors", "store"},
    "commands": {
        "backends", "board", "config", "config_parts", "conformance", "contracts", "errors",
        "estimate", "execute", "files", "gather", "judge", "pipeline", "records", "registry",
        "scores", "stats", "store", "visible",
    },
    "cli": {"commands", "errors", "visible"},
}  # fmt: skip


def part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imports(path: Path) -> set[str]:
    """Parts of the harness that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {part(alias.name) for alias in node.names if alias.name.startswith("harness.")}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            if node.module == "harness":
                found |= {alias.name for alias in node.names}
            elif node.module.startswith("harness."):
                found.add(part(node.module))
    return found


def files() -> list[Path]:
    return sorted(p for p in (ROOT / "harness").rglob("*.py") if p.name != "__init__.py")


@pytest.mark.parametrize("path", files(), ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_point_one_way(path: Path) -> None:
    own = path.relative_to(ROOT / "harness").parts[0].removesuffix(".py")
    assert own in BELOW, f"harness/{own} has no place in the architecture: give it one"
    assert imports(path) - {own} <= BELOW[own]


def test_the_table_has_no_upward_arrow() -> None:
    order = list(BELOW)
    for own, below in BELOW.items():
        assert all(order.index(other) < order.index(own) for other in below if own != "api"), own


@pytest.mark.parametrize("folder", ["methods", "tasks"])
def test_a_plugin_imports_the_api_and_third_parties_only(folder: str) -> None:
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                assert not name.startswith("harness") or name == "harness.api", f"{path}: {name}"


def test_the_harness_names_no_plugin() -> None:
    methods = {p.stem for p in (ROOT / "methods").glob("*.py")} - {"__init__", "dpo"}
    tasks = {p.stem for p in (ROOT / "tasks").glob("*.py")} - {"__init__"}
    for path in files():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert node.value not in methods | tasks, f"{path}:{node.lineno}: {node.value}"


@pytest.mark.parametrize("command", [["--help"], ["list"], ["run", "--help"]])
def test_help_and_list_import_no_torch(command: list[str]) -> None:
    code = (
        "import sys; from harness.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'transformers', 'pandas', 'numpy', 'vllm'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_only_the_generation_backend_may_know_vllm() -> None:
    for path in files():
        assert "vllm" not in imports_of_third_parties(path), path


def imports_of_third_parties(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


def test_torch_stays_where_tensors_are() -> None:
    allowed = {"contracts", "engine", "train", "conformance", "generate", "judge", "commands"}
    for path in files():
        own = path.relative_to(ROOT / "harness").parts[0].removesuffix(".py")
        assert "torch" not in imports_of_third_parties(path) or own in allowed, path


def test_the_tree_in_the_architecture_page_is_the_tree() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for path in (ROOT / "harness").iterdir():
        if path.name not in ("__pycache__", "__init__.py", "py.typed"):
            assert f"  {path.name}" in page, f"docs/architecture.md does not name {path.name}"
