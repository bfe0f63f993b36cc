#!/usr/bin/env bash
# Lints and tests the project in .venv, which it sets up first. Arguments go to pytest.
#
#   scripts/test.sh                     everything but the tests of over a minute
#   scripts/test.sh --very_slow         these, too
#   scripts/test.sh -k binning          some
set -euo pipefail

# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

selection=(-m "not very_slow")
if [ "${1:-}" = "--very_slow" ]; then
    selection=()
    shift
fi

ruff check .
ruff format --check .
# one thread per process: two processes that both use every core wait for each other
OMP_NUM_THREADS=1 python -m pytest -n 2 --dist worksteal "${selection[@]}" "$@"
