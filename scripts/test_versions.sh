#!/usr/bin/env bash
# Tests with the lowest or the newest versions that pyproject.toml allows, in an environment of its own. Arguments go to
# pytest; without any, it runs the tests of up to a few seconds. It downloads PyTorch with CUDA, several gigabytes.
#
#   scripts/test_versions.sh lowest
#   scripts/test_versions.sh newest -k binning
#
#   PYTHON=python3.13       the Python to test with (default: python3)
set -euo pipefail

fail() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

case ${1:-} in
    lowest) resolution=lowest-direct ;;
    newest) resolution=highest ;;
    *) fail "Say which versions to test with: scripts/test_versions.sh lowest, or newest." ;;
esac
which=$1
shift
(($#)) || set -- -m "not slow and not very_slow"

cd "$(dirname "${BASH_SOURCE[0]}")/.."
base=${PYTHON:-python3}
"$base" -c 'import ensurepip, venv' 2> /dev/null \
    || fail "'$base' lacks venv or ensurepip; on Debian and Ubuntu, 'sudo apt install python3-venv' brings them."

# uv resolves to the lowest versions, which pip cannot.
tool=.venv-uv
[ -x "$tool/bin/uv" ] || { "$base" -m venv "$tool" && "$tool/bin/python" -m pip install --quiet uv; }
folder=.venv-$which
"$tool/bin/uv" venv --clear --python "$base" "$folder"
pins=$folder/pins.txt
"$tool/bin/uv" pip compile --quiet --python "$folder/bin/python" --resolution "$resolution" --extra test \
    --no-header --no-annotate --output-file "$pins" pyproject.toml
cat "$pins"
"$tool/bin/uv" pip install --python "$folder/bin/python" --requirement "$pins"

OMP_NUM_THREADS=1 PYTHONPATH=$PWD/src "$folder/bin/python" -m pytest -n 2 --dist worksteal "$@"
