from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import RequestError
from harness.store import code_version as code
from harness.store import stage as stage_module
from harness.store.stage import Stage

LABORATORY = {
    "__init__.py": "",
    "train.py": "from .step import step\nfrom harness.errors import DataError\n\n\n"
    "def f(work):\n    from laboratory import late\n    return step(late.RATE)\n",
    "step.py": "import laboratory.deep.far as far\n\n\ndef step(x):\n    return x * far.FACTOR\n",
    "late.py": "from harness.records import Prompt\nRATE = 3\n",
    "alone.py": "NOBODY = 'imports this'\n",
    "deep/__init__.py": "",
    "deep/far.py": "FACTOR = 2\n",
}


@pytest.fixture
def laboratory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package outside the harness, in whose `train.py` a stage function lives."""
    for name, text in LABORATORY.items():
        path = tmp_path / "laboratory" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    _forget()
    return tmp_path / "laboratory"


def _forget() -> None:
    """What a new process would not know either."""
    code.code_version.cache_clear()
    code._spec.cache_clear()


def _version(*plugins: Path) -> str:
    _forget()
    return code.code_version("laboratory.train:f", plugins)


def _stage(**changes: Any) -> Stage:
    given: dict[str, Any] = {
        "verb": "train",
        "label": "train dpo, seed 1",
        "call": "harness.records:write_jsonl",
        "settings": {"beta": 0.1, "seed": 1},
        "inputs": {"pairs": Stage("load", "", "harness.records:read_jsonl", {"n": 1}, {})},
    }
    return Stage(**{**given, **changes})


def test_a_key_is_short_hexadecimal_and_the_same_for_equal_stages() -> None:
    assert _stage().key == _stage().key
    assert len(_stage().key) == stage_module.KEY_LENGTH
    assert int(_stage().key, 16) >= 0


def test_every_ingredient_changes_the_key(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("X = 1\n")
    pairs = _stage().inputs["pairs"]
    changed = [
        _stage(),
        _stage(verb="tune"),
        _stage(call="harness.records:read_jsonl"),
        _stage(settings={"beta": 0.2, "seed": 1}),
        _stage(settings={"beta": 0.1, "seed": "1"}),
        _stage(settings={"beta": 0.1}),
        _stage(inputs={}),
        _stage(inputs={"reference": pairs}),
        _stage(inputs={"pairs": replace(pairs, settings={"n": 2})}),
        _stage(plugins=(tmp_path / "mine.py",)),
    ]
    assert len({stage.key for stage in changed}) == len(changed)


def test_a_key_depends_on_inputs_of_inputs() -> None:
    def chain(n: int) -> Stage:
        first = Stage("load", "", "harness.records:read_jsonl", {"n": n}, {})
        return _stage(inputs={"pairs": _stage(inputs={"raw": first})})

    assert chain(1).key != chain(2).key


def test_the_label_is_for_people_and_not_in_the_key() -> None:
    assert _stage(label="other").key == _stage().key


def test_the_order_of_settings_is_not_in_the_key_and_no_function_sees_it() -> None:
    turned = _stage(settings={"seed": 1, "beta": 0.1})
    assert turned.key == _stage().key
    assert list(turned.settings) == list(_stage().settings)


def test_versions_of_packages_are_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = _stage().key
    versions = {**stage_module.package_versions(), "torch": "0.0.1"}
    monkeypatch.setattr(stage_module, "package_versions", lambda: versions)
    assert _stage().key != before


def test_changing_a_dictionary_afterwards_changes_no_stage() -> None:
    settings, inputs = {"betas": [0.1]}, dict(_stage().inputs)
    stage = _stage(settings=settings, inputs=inputs)
    settings["betas"].append(0.2)
    inputs.clear()
    assert stage.settings == {"betas": [0.1]}
    assert list(stage.inputs) == ["pairs"]


def test_a_function_sees_what_the_key_saw() -> None:
    assert _stage(settings={"sizes": (1, 2)}).settings == {"sizes": [1, 2]}
    assert _stage(settings={"sizes": (1, 2)}).key == _stage(settings={"sizes": [1, 2]}).key


@pytest.mark.parametrize("value", [float("nan"), Path("x"), {1, 2}, object()])
def test_a_setting_that_is_not_json_is_refused_by_name(value: object) -> None:
    with pytest.raises(RequestError, match="train dpo, seed 1: a setting is not a JSON value"):
        _stage(settings={"x": value})


def test_a_worker_gets_the_key_and_does_not_find_its_own() -> None:
    stage = _stage()
    key = stage.key
    assert pickle.loads(pickle.dumps(stage)).__dict__["key"] == key
    assert stage.key_now() == key


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


WORDS = [
    ("train.py", "def f(work):", 'def f(work):\n    """Trains."""'),
    ("train.py", "def f(work):", "# a reason\n\n\ndef f(work):  # and another"),
    ("step.py", "return x * far.FACTOR", "return (\n        x *\n far.FACTOR)"),
    ("deep/far.py", "FACTOR = 2", 'FACTOR = 2\n"""Twice: see the paper."""'),
    ("late.py", "from harness", '"""Rates."""\n\nfrom harness'),
    ("alone.py", "imports this", "will ever import this"),
]


@pytest.mark.parametrize(("name", "old", "new"), WORDS)
def test_words_and_layout_keep_the_code_version(
    laboratory: Path, name: str, old: str, new: str
) -> None:
    before = _version()
    _edit(laboratory / name, old, new)
    assert _version() == before


CODE = [
    ("train.py", "late.RATE", "late.RATE + 1"),  # the module of the call
    ("step.py", "x * far", "x + far"),  # imported relatively
    ("deep/far.py", "2", "2.0"),  # imported by an import
    ("late.py", "3", "4"),  # imported inside a function, as a name of a package
    ("__init__.py", "", "import os\n"),  # run by every import
    ("deep/__init__.py", "", "import os\n"),
]


@pytest.mark.parametrize(("name", "old", "new"), CODE)
def test_code_changes_the_code_version(laboratory: Path, name: str, old: str, new: str) -> None:
    before = _version()
    _edit(laboratory / name, old, new) if old else (laboratory / name).write_text(new)
    assert _version() != before


@pytest.mark.parametrize("name", ["__init__.py", "deep/__init__.py"])
def test_packages_around_the_module_are_code_too(laboratory: Path, name: str) -> None:
    before = code.code_version("laboratory.deep.far:f")
    (laboratory / name).write_text("import os\n")
    _forget()
    assert code.code_version("laboratory.deep.far:f") != before


def test_modules_of_the_harness_are_followed(
    laboratory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _version()
    monkeypatch.setitem(code._LEFT_OUT, "harness.records", "to see that it was in")
    assert _version() != before


def test_what_is_left_out_says_why() -> None:
    assert all(reason for reason in code._LEFT_OUT.values())
    left_out = {"harness.errors", "harness.store.stage", "harness.store.code_version"}
    assert set(code._LEFT_OUT) == left_out


def test_a_plugin_counts_as_code_wherever_it_lies(laboratory: Path, tmp_path: Path) -> None:
    paths = [tmp_path / "here" / "mine.py", tmp_path / "there" / "mine.py"]
    for path in paths:
        path.parent.mkdir()
        path.write_text("from ._near import Y\nX = 1\n")
        path.with_name("_near.py").write_text("Y = 1\n")
    with_plugin = _version(paths[0])
    assert with_plugin != _version()
    assert _version(paths[1]) == with_plugin
    paths[0].write_text('"""Mine."""\nfrom ._near import Y\nX = 1  # one\n')
    assert _version(paths[0]) == with_plugin
    paths[0].with_name("_near.py").write_text("Y = 2\n")
    assert _version(paths[0]) != with_plugin


def test_a_plugin_brings_what_it_imports_from_the_harness(
    laboratory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text("from harness.api import method\n")
    before = _version(plugin)
    monkeypatch.setitem(code._LEFT_OUT, "harness.contracts.method", "to see that it was in")
    assert _version(plugin) != before


def test_a_plugin_that_is_not_python_is_an_error_with_file_and_line(
    laboratory: Path, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text("x = 1\ndef f(:\n")
    with pytest.raises(RequestError, match=r"mine\.py:2: not Python"):
        _version(tmp_path / "mine.py")
    with pytest.raises(RequestError, match=r"cannot read .*none\.py: No such file"):
        _version(tmp_path / "none.py")


def test_an_odd_escape_in_a_plugin_is_no_warning(laboratory: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("x = '\\d'\n")
    _version(tmp_path / "mine.py")


def test_a_stage_without_a_module_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"harness\.nothing"):
        _ = _stage(call="harness.nothing:f").key


def test_a_key_is_found_without_importing_what_it_is_about() -> None:
    program = (
        "import sys\n"
        "from harness.store.stage import Stage\n"
        "import harness.store.store, harness.execute.here\n"
        "Stage('train', '', 'harness.contracts.logprobs:f', {}, {}).key\n"
        "heavy = {'torch', 'numpy', 'pandas', 'transformers', 'harness.contracts'}\n"
        "print(sorted(heavy & sys.modules.keys()))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n", done.stderr
