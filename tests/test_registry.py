"""Plug-ins are found without an import, imported when named, and told apart."""

from __future__ import annotations

import importlib.util
import os
import resource
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from harness.api import PairLogProbs, RequestError
from harness.registry import found, load_method, load_task, source_files

HERE = Path(__file__).parent
METHOD = '''
from harness.api import PairLogProbs, PerPair, method


@method(source="own work")
def {name}(policy: PairLogProbs, *, beta: float = 0.5) -> PerPair:
    """Mine: for a test."""
    return -beta * policy.chosen.total()
'''


def write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))


def install(
    folder: Path, distribution: str, kind: str, entry: str, files: Mapping[str, str] | None = None
) -> None:
    """What an installer leaves behind: modules, metadata, an entry point."""
    info = f"{distribution.replace('-', '_')}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n"
    write(folder, {f"{info}/METADATA": metadata})
    write(folder, {f"{info}/entry_points.txt": f"[harness.{kind}]\n{entry}\n", **(files or {})})


def run(code: str, *, path: Path | None = None, flags: str = "-W error") -> str:
    """Standard output of Python code in a process of its own, with a folder on its path."""
    environment = {**os.environ, "PYTHONPATH": str(path or "")}
    command = [sys.executable, *flags.split(), "-c", textwrap.dedent(code)]
    return subprocess.run(
        command, env=environment, cwd=HERE, check=True, capture_output=True, text=True
    ).stdout


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that this process looks into for distributions and modules."""
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


# Built in


def test_built_in_methods_are_found_by_file_name() -> None:
    methods = found("methods")
    assert {"dpo", "simpo", "madpo", "alphadpo"} <= set(methods)
    assert list(methods) == sorted(methods)
    dpo = methods["dpo"]
    assert (dpo.origin, dpo.rivals) == ("built in", ())
    assert dpo.file is not None
    assert dpo.file.name == "dpo.py"
    assert not any(name.startswith("_") for name in methods)


@pytest.mark.parametrize("name", [f.name for f in found("methods").values() if not f.rivals])
def test_a_built_in_method_loads_and_is_what_its_text_says(name: str) -> None:
    listed, loaded = found("methods")[name], load_method(name)
    assert loaded.name == name
    assert listed.summary == loaded.summary != ""
    assert listed.source == loaded.source != ""
    assert load_method(name) is loaded


@pytest.mark.parametrize("name", [f.name for f in found("tasks").values() if not f.rivals])
def test_a_built_in_task_loads_and_is_what_its_text_says(name: str) -> None:
    assert load_task(name).name == name
    assert found("tasks")[name].summary == load_task(name).summary != ""


def test_listing_imports_no_plug_in_and_nothing_heavy() -> None:
    code = """
        import sys
        from harness.registry import found, source_files
        found("methods"), found("tasks"), source_files("dpo", "methods")
        heavy = {"torch", "numpy", "pandas", "transformers", "harness.contracts", "harness.api"}
        print(sorted(m for m in sys.modules if m in heavy or m.startswith("harness.methods")))
    """
    assert run(code).strip() == "[]"


def test_listing_is_quick() -> None:
    def seconds(code: str) -> float:
        """Processor time, which other work on the machine does not lengthen much."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        run(code)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    listing = "from harness.registry import found; found('methods')"
    assert min(seconds(listing) - seconds("pass") for _ in range(5)) < 0.1


def test_a_plug_in_has_one_identity() -> None:
    load_method("dpo")
    assert not {"methods", "methods.dpo", "tasks"} & set(sys.modules)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(RequestError, match="unknown method 'simp0': did you mean 'simpo'"):
        load_method("simp0")
    with pytest.raises(RequestError, match="unknown task 'dpo'"):
        load_task("dpo")
    with pytest.raises(RequestError, match="unknown method 'alphdpo'"):
        source_files("alphdpo", "methods")


def test_a_checkout_that_was_never_installed_says_what_to_do(tmp_path: Path) -> None:
    shutil.copytree(HERE.parent / "harness", tmp_path / "harness")
    code = """
        from harness.registry import found
        try:
            found("methods")
        except Exception as error:
            print(type(error).__name__, error)
    """
    said = run(code, path=tmp_path, flags="-S")
    assert said.startswith("RequestError harness.methods is missing")
    assert "pip install -e ." in said


# A path


def test_a_method_is_loaded_from_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"mine.py": METHOD.format(name="mine")})
    monkeypatch.chdir(tmp_path)
    for path in ("./mine.py", "mine.py", str(tmp_path / "mine.py")):
        mine = load_method(path)
        assert (mine.name, mine.source, mine.defaults) == ("mine", "own work", {"beta": 0.5})
    assert source_files("mine.py", "methods") == [(tmp_path / "mine.py").resolve()]
    assert "mine" not in found("methods")
    totals = torch.tensor([-2.0])
    policy = PairLogProbs.from_totals(totals, totals)
    assert mine.losses(policy=policy).tolist() == [1.0]


def test_two_files_called_alike_stay_two_methods(tmp_path: Path) -> None:
    write(tmp_path, {"a/mine.py": METHOD.format(name="mine")})
    write(tmp_path, {"b/mine.py": METHOD.format(name="mine").replace("0.5", "0.7")})
    first, second = (load_method(str(tmp_path / folder / "mine.py")) for folder in "ab")
    assert (first.defaults["beta"], second.defaults["beta"]) == (0.5, 0.7)
    assert first.loss.__module__ != second.loss.__module__


def test_the_path_of_a_built_in_file_is_that_built_in_method() -> None:
    file = found("methods")["dpo"].file
    assert load_method(str(file)) is load_method("dpo")


def test_a_path_that_is_no_file_is_refused() -> None:
    with pytest.raises(RequestError, match=r"no file './nowhere.py'"):
        load_method("./nowhere.py")


def test_a_path_may_not_shadow_a_built_in_method(tmp_path: Path) -> None:
    write(tmp_path, {"dpo.py": METHOD.format(name="dpo")})
    path = str(tmp_path / "dpo.py")
    with pytest.raises(RequestError) as refusal:
        load_method(path)
    assert f"2 methods are called 'dpo': {path} and built in" in str(refusal.value)
    assert load_method("dpo").source.startswith("arXiv:2305.18290")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (METHOD.format(name="other"), "defines no 'mine'"),
        ("def mine(policy): ...", "is no method: put @method above it"),
        (METHOD.format(name="other") + "\nmine = other", "is called 'other'"),
        (
            "from harness.api import Task, task\n\n@task()\ndef mine() -> Task: ...",
            "'mine' in .*mine.py is no method",
        ),
        ("import a_package_that_nobody_has", "line 1: ModuleNotFoundError: No module named"),
        ("x = 1\n\ndef broken(:\n", "line 3: SyntaxError"),
        ("def helper():\n    raise KeyError('a')\n\nhelper()", "line 2: KeyError: 'a'"),
        ("import sys\nsys.exit(3)", "line 2: SystemExit: 3"),
        (
            METHOD.format(name="mine").replace("beta: float = 0.5", "beta: float"),
            r"line \d: RequestError: method 'mine': 'beta' must be an input or a setting",
        ),
        ("from .other import x", "line 1: ImportError: attempted relative import"),
    ],
)
def test_a_file_that_is_no_method_says_which_file_and_why(
    tmp_path: Path, text: str, says: str
) -> None:
    write(tmp_path, {"mine.py": text})
    before = set(sys.modules)
    with pytest.raises(RequestError, match=says) as refusal:
        load_method(str(tmp_path / "mine.py"))
    assert str(tmp_path / "mine.py") in str(refusal.value)
    if "cannot be imported" in str(refusal.value):
        assert not {name for name in set(sys.modules) - before if name.endswith("mine")}


# Other distributions


def test_an_entry_point_is_found_and_loaded(site: Path) -> None:
    install(site, "pack-a", "methods", "m_a = m_a", {"m_a.py": METHOD.format(name="m_a")})
    listed = found("methods")["m_a"]
    assert (listed.origin, listed.file) == ("pack-a", site / "m_a.py")
    assert (listed.summary, listed.source) == ("Mine: for a test.", "own work")
    assert "m_a" not in sys.modules
    assert load_method("m_a").source == "own work"
    assert source_files("m_a", "methods") == [site / "m_a.py"]


def test_a_built_in_method_cannot_be_shadowed_in_silence(site: Path) -> None:
    install(site, "pack-b", "methods", "dpo = m_b:dpo", {"m_b.py": METHOD.format(name="dpo")})
    for ask in (load_method, lambda name: source_files(name, "methods")):
        with pytest.raises(RequestError, match="2 methods are called 'dpo': built in and pack-b"):
            ask("dpo")
    assert load_method("simpo").name == "simpo"
    assert found("methods")["dpo"].rivals == ("pack-b",)


def test_two_distributions_with_one_name_are_both_named(site: Path) -> None:
    install(site, "pack-c", "methods", "m_c = m_c", {"m_c.py": METHOD.format(name="m_c")})
    install(site, "pack-d", "methods", "m_c = m_d:m_c", {"m_d.py": METHOD.format(name="m_c")})
    with pytest.raises(RequestError, match=r"pack-[cd] and pack-[cd]"):
        load_method("m_c")


def test_an_entry_point_carries_the_name_of_its_function(site: Path) -> None:
    install(site, "pack-e", "methods", "alias = m_e:m_e", {"m_e.py": METHOD.format(name="m_e")})
    with pytest.raises(RequestError, match=r"method 'alias' in .*m_e.py is called 'm_e'"):
        load_method("alias")


def test_an_entry_point_to_a_missing_module_fails_when_named(site: Path) -> None:
    install(site, "pack-f", "methods", "m_f = not_there.m_f:m_f")
    assert found("methods")["m_f"].file is None
    with pytest.raises(RequestError, match=r"'m_f' .pack-f. cannot be imported: not_there.m_f: "):
        load_method("m_f")
    with pytest.raises(RequestError, match=r"no source file of 'not_there.m_f'"):
        source_files("m_f", "methods")


def test_source_files_follow_the_imports_of_a_package(site: Path) -> None:
    task = '''
        from harness.api import Task, task
        from .worlds import grammar
        from pack_g.numbers import one
        import json, torch

        @task()
        def t_g() -> Task:
            """A task."""
            from .worlds.late import words
            import pack_g.deep.end
            raise NotImplementedError
    '''
    install(
        site,
        "pack-g",
        "tasks",
        "t_g = pack_g.t_g:t_g",
        {
            "pack_g/__init__.py": "",
            "pack_g/t_g.py": task,
            "pack_g/numbers.py": "from . import more\none = more.one",
            "pack_g/more.py": "one = 1",
            "pack_g/unused.py": "one = 1",
            "pack_g/worlds/__init__.py": "",
            "pack_g/worlds/grammar.py": "from ..above import one\nfrom .late import words",
            "pack_g/above.py": "one = 1",
            "pack_g/worlds/late.py": "words = 1",
            "pack_g/worlds/other.py": "raise SystemExit",
            "pack_g/deep/__init__.py": "",
            "pack_g/deep/end.py": "",
        },
    )
    files = [str(file.relative_to(site / "pack_g")) for file in source_files("t_g", "tasks")]
    assert files[0] == "t_g.py"
    assert files[1:] == sorted(
        [
            "__init__.py",
            "above.py",
            "deep/__init__.py",
            "deep/end.py",
            "more.py",
            "numbers.py",
            "worlds/__init__.py",
            "worlds/grammar.py",
            "worlds/late.py",
        ]
    )
    assert "pack_g" not in sys.modules
    assert load_task("t_g").name == "t_g"


def test_source_files_of_a_method_that_imports_the_contract_only_are_its_own() -> None:
    assert source_files("dpo", "methods") == [found("methods")["dpo"].file]


# A real distribution, built and installed as its users would


@pytest.fixture(scope="session")
def outside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for tool in ("pip", "setuptools"):
        if importlib.util.find_spec(tool) is None:
            pytest.skip(f"this environment has no {tool}")
    project, target = tmp_path_factory.mktemp("project"), tmp_path_factory.mktemp("target")
    shutil.copytree(HERE / "outside", project, dirs_exist_ok=True)
    offline = ["--no-index", "--no-build-isolation", "--no-deps", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *offline, "--target", target, project]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def test_an_installed_distribution_is_found_loaded_and_evaluated(outside: Path) -> None:
    code = """
        import sys, torch
        from harness.api import PairLogProbs
        from harness.registry import found, load_method
        listed = found("methods")["outside_hinge"]
        assert not {"outside_hinge", "outside_broken"} & set(sys.modules)
        print(listed.origin, listed.file.name, listed.summary)
        one, two = torch.tensor([-4.0]), torch.tensor([-9.0])
        policy, reference = PairLogProbs.from_totals(one, two), PairLogProbs.from_totals(two, two)
        print(load_method("outside_hinge").losses(policy=policy, reference=reference).tolist())
        print(load_method("dpo").name)
    """
    origin, losses, other = run(code, path=outside).splitlines()
    assert origin.startswith("outside-methods outside_hinge.py Hinge: one loss per pair")
    assert (losses, other) == ("[0.5]", "dpo")


def test_a_broken_installed_method_fails_only_if_it_is_named(outside: Path) -> None:
    code = """
        from harness.registry import found, load_method
        assert {"outside_hinge", "outside_broken", "dpo"} <= set(found("methods"))
        load_method("outside_hinge"), load_method("dpo")
        try:
            load_method("outside_broken")
        except Exception as error:
            print(type(error).__name__, error)
    """
    said = run(code, path=outside)
    assert said.startswith("RequestError method 'outside_broken' (outside-methods) cannot be")
    assert "outside_broken.py, line 3: ModuleNotFoundError" in said
