#!/usr/bin/env bash
# Makes .venv with the pinned dependencies and this project in it; does nothing when that was done before.
# The other scripts source it: afterwards `python` is that of .venv, and the current folder is the project's.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."

if [ ! -x .venv/bin/python ]; then
    base=${PYTHON:-python3}
    if ! "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "error: Python 3.11 or newer is needed; set PYTHON to its path." >&2
        exit 2
    fi
    "$base" -m venv .venv
fi

wanted=$(cat requirements.lock pyproject.toml | sha256sum | cut -d ' ' -f 1)
if [ "$(cat .venv/installed 2>/dev/null || true)" != "$wanted" ]; then
    echo "Installing the pinned dependencies into .venv (once)"
    install=(.venv/bin/python -m pip install --quiet --disable-pip-version-check)
    "${install[@]}" -r requirements.lock
    "${install[@]}" --no-deps --no-build-isolation -e .
    echo "$wanted" >.venv/installed
fi

export PATH="$PWD/.venv/bin:$PATH"
