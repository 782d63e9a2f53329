"""Environments of the peers: made once with the ordinary pip, in a folder that is kept."""

from __future__ import annotations

import subprocess
import venv
from pathlib import Path

from harness.errors import RequestError

FOLDER = Path.home() / ".cache" / "preference-harness" / "peers"
TORCH = "torch>=2.11,<2.14"
_VERSION = "from importlib.metadata import version as v; import peft; print(v('trl'))"


def python_of_trl(release: str, folder: Path = FOLDER) -> Path:
    """The interpreter of an environment with that release of TRL; made now where there is none.

    Raises:
        RequestError: it cannot be made.
    """
    place = folder / f"trl-{release}"
    python = place / "bin" / "python"
    if _found(python) == release:
        return python
    venv.create(place, with_pip=True)
    command = [str(python), "-m", "pip", "install", "-q", f"trl[peft]=={release}", TORCH]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if _found(python) != release:
        raise RequestError(
            f"TRL {release} cannot be installed into {place}: {made.stderr.strip()[-500:]} -- "
            "name a folder with another --environments, or other releases with --against"
        )
    return python


def _found(python: Path) -> str | None:
    if not python.exists():
        return None
    run = subprocess.run([str(python), "-c", _VERSION], capture_output=True, text=True, check=False)
    return run.stdout.strip() or None
