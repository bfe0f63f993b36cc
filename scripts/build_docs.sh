#!/usr/bin/env bash
# Builds the documentation as HTML in build/docs, in the virtual environment, which it sets up first; warnings are
# errors. Arguments go to Sphinx.
set -euo pipefail

# shellcheck disable=SC2034  # setup.sh reads it
setup_docs=true
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

python -m sphinx --builder html --fail-on-warning --quiet "$@" docs build/docs
echo "build/docs/index.html"
