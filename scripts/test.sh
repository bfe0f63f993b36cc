#!/usr/bin/env bash
# Checks and tests the project in its virtual environment, which it sets up first. Arguments go to pytest.
#
#   scripts/test.sh                     everything but the tests of over a minute
#   scripts/test.sh --very_slow         these, too
#   scripts/test.sh --fast              only the tests of up to a few seconds
#   scripts/test.sh -k binning          some
#
#   PYTHON=python3.13 VENV=.venv-3.13 scripts/test.sh --fast         with another Python
set -euo pipefail

selection=(-m "not very_slow")
case ${1:-} in
    --very_slow) selection=(); shift ;;
    --fast) selection=(-m "not slow and not very_slow"); shift ;;
esac

# shellcheck disable=SC2034  # setup.sh reads it
setup_tests=true
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

ruff check .
ruff format --check .
codespell .
shellcheck --external-sources scripts/*.sh .ci/run
mypy
# one thread per process: two processes that both use every core wait for each other
OMP_NUM_THREADS=1 python -m pytest -n 2 --dist worksteal "${selection[@]}" "$@"
