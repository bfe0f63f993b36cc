#!/usr/bin/env bash
# From nothing to an evaluated, calibrated segmentation: makes the phantom data, generates a bundle, trains, predicts,
# evaluates, and ends with a table and the paths of the figures. A few minutes on two CPU cores.
#
#   scripts/quickstart.sh [--loss softl1ace_dice_ce] [--method deterministic]
set -euo pipefail

loss=baseline_dice_ce
method=deterministic
while [ $# -gt 0 ]; do
    case $1 in
        --loss) loss=${2:?"--loss needs a value"}; shift 2 ;;
        --method) method=${2:?"--method needs a value"}; shift 2 ;;
        *) echo "error: unknown option $1; there are --loss and --method." >&2; exit 2 ;;
    esac
done

# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

bundle=$(python generate_bundle.py --data phantom --loss "$loss" --method "$method" | tail -n 1)
echo "Bundle: $bundle"
for mode in train inference_pred inference_eval; do
    echo "== $mode"
    python run_bundle.py --bundle "$bundle" --mode "$mode"
done
