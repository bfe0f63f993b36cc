#!/usr/bin/env bash
# Makes a virtual environment with the pinned dependencies and this project in it; does nothing when that was done.
# The other scripts source it: afterwards `python` is that of the environment, and the current folder is the project's.
#
#   PYTHON          the Python to make it with (default: python3)
#   VENV            its folder (default: .venv)
#   setup_tests     true also installs what the tests need
#   setup_docs      true also installs what building the documentation needs
set -euo pipefail

setup_fail() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

# Shows what is large of what pip says; all of it is in the log.
setup_progress() {
    awk '
        /^ *(Downloading|Using cached|Processing) .*\([0-9.]+ (GB|[0-9]* ?MB)\)/ {
            size = $(NF - 1); gsub(/\(/, "", size)
            if ($NF ~ /GB/ || size + 0 >= 20) {
                name = $(NF - 2); sub(/.*\//, "", name); sub(/-.*/, "", name)
                print "  downloading " name " (" size " " $NF; fflush()
            }
        }
        /^Installing collected packages:.*,/ {
            slow = /[ ,]torch(,|$)/ ? ", which takes minutes where PyTorch brings CUDA along" : ""
            print "  unpacking " gsub(/,/, ",") + 1 " packages" slow; fflush()
        }
    '
}

setup_install() {
    local log=$VENV/setup.log
    if ! "$VENV/bin/python" -m pip install --disable-pip-version-check --progress-bar off "$@" 2>&1 \
        | tee -a "$log" | setup_progress; then
        grep -E '^ *(ERROR|error)' "$log" | tail -n 5 >&2 || true
        setup_fail "pip could not install the dependencies: '$log' says why."
    fi
}

cd "$(dirname "${BASH_SOURCE[0]}")/.."

VENV=${VENV:-.venv}
setup_base=${PYTHON:-python3}
if ! "$VENV/bin/python" -m pip --version > /dev/null 2>&1; then
    "$setup_base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2> /dev/null \
        || setup_fail "Python 3.11 or newer is needed, and '$setup_base' is none; set PYTHON to the path of one."
    # Debian and Ubuntu keep them in a package of their own, without which an environment is made, but has no pip.
    "$setup_base" -c 'import ensurepip, venv' 2> /dev/null \
        || setup_fail "'$setup_base' lacks venv or ensurepip; on Debian and Ubuntu, 'sudo apt install python3-venv' brings them."
    if [ -e "$VENV" ] && [ ! -e "$VENV/pyvenv.cfg" ] && [ -n "$(ls -A "$VENV")" ]; then
        setup_fail "'$VENV' is no virtual environment; move it away, or set VENV to another folder."
    fi
    [ ! -e "$VENV" ] || echo "The environment in $VENV does not work: making it again"
    "$setup_base" -m venv --clear "$VENV" || setup_fail "'$setup_base' cannot make a virtual environment in '$VENV'."
    "$VENV/bin/python" -m pip --version > /dev/null 2>&1 || setup_fail "The new environment in '$VENV' has no pip."
elif [ -n "${PYTHON:-}" ]; then
    setup_version='import sys; print("%d.%d" % sys.version_info[:2])'
    setup_there=$("$VENV/bin/python" -c "$setup_version")
    setup_wanted=$("$setup_base" -c "$setup_version" 2> /dev/null) || setup_fail "PYTHON is '$setup_base', which does not run."
    [ "$setup_there" = "$setup_wanted" ] \
        || setup_fail "'$VENV' holds Python $setup_there, but PYTHON is $setup_wanted: set VENV to another folder."
fi

setup_locks=(requirements.lock)
! "${setup_tests:-false}" || setup_locks+=(requirements-test.lock)
! "${setup_docs:-false}" || setup_locks+=(requirements-docs.lock)
for setup_lock in "${setup_locks[@]}"; do
    setup_done=$VENV/installed-$setup_lock
    setup_wanted=$(cat "$setup_lock" pyproject.toml | sha256sum | cut -d ' ' -f 1)
    if [ "$(cat "$setup_done" 2> /dev/null || true)" != "$setup_wanted" ]; then
        echo "Installing $setup_lock into $VENV (once)"
        setup_install -r "$setup_lock" -c requirements.lock
        # the project itself is linked, so that an edit needs no new installation
        [ "$setup_lock" != requirements.lock ] || setup_install --no-deps --no-build-isolation -e .
        echo "$setup_wanted" > "$setup_done"
    fi
done

PATH=$(cd "$VENV/bin" && pwd -P):$PATH
export PATH
