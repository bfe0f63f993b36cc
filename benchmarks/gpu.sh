#!/usr/bin/env bash
# Every test and benchmark that needs a GPU, within seven minutes, on a machine with PyTorch and Triton and no network.
#
#     benchmarks/gpu.sh [--wheels FOLDER] [--output FOLDER] [--quick] [--dry]
#
# --wheels installs the wheels of a folder, without their needs, into a temporary folder, and uses them from there.
# --quick runs tests and short benchmarks in about four minutes; --dry tries the script itself, tiny, on the CPU.
# Each part has a time of its own, so that one that hangs does not take that of the others. Results: table.md, table.json.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1

wheels="" output="gpu_results" quick="" dry=""
while [ $# -gt 0 ]; do
    case "$1" in
        --wheels) wheels="$2"; shift ;;
        --output) output="$2"; shift ;;
        --quick) quick="--quick" ;;
        --dry) dry="--dry" ;;
        *) echo "unknown option $1" >&2; exit 2 ;;
    esac
    shift
done
mkdir -p "$output"
output="$(cd "$output" && pwd)"
work="$(mktemp -d)"
trap 'rm -rf "$work"' EXIT
export PYTHONUNBUFFERED=1 PYTHONPATH="$PWD/src${PYTHONPATH:+:$PYTHONPATH}" TRITON_CACHE_DIR="$work/triton" NUMBA_CACHE_DIR="$work/numba"
if [ -n "$wheels" ]; then
    python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --target "$work/site" "$wheels"/*.whl || exit 1
    export PYTHONPATH="$PYTHONPATH:$work/site"
fi
mkdir -p "$work/parts"
summary="$work/parts/summary.txt"
: > "$summary"
: > "$output/gpu.log"

started="$(date +%s)"
total="$([ -n "$quick" ] && echo 290 || echo 425)"

part() {  # name, seconds at the most, command
    local name="$1" limit="$2" begin end code
    shift 2
    begin="$(date +%s)"
    [ "$limit" -lt $((started + total - begin)) ] || limit=$((started + total - begin))
    if [ "$limit" -lt 5 ]; then
        echo "$name: left out, no time left" | tee -a "$summary"
        return
    fi
    echo "===== $name (at most $limit s) =====" | tee -a "$output/gpu.log"
    timeout -k 5 "$limit" "$@" 2>&1 | tee -a "$output/gpu.log"
    code="${PIPESTATUS[0]}"
    end="$(date +%s)"
    echo "$name: exit code $code after $((end - begin)) s" | tee -a "$summary"
}

bench() {  # part, seconds
    # shellcheck disable=SC2086
    part "$1" "$2" python3 benchmarks/bench_gpu.py "$1" $quick $dry --output "$work/parts"
}

end_to_end() {
    local bundle
    cd "$work" || return 1
    bundle="$(python3 "$here/generate_bundle.py" --data phantom --loss softl1ace_dice_ce --method deterministic \
        --bundles_dir "$work/bundles" | tail -n 1)" || return 1
    echo "$bundle"
    for mode in train inference_pred inference_eval; do
        echo "--- $mode"
        time python3 "$here/run_bundle.py" --bundle "$bundle" --mode "$mode" --debug --data::dataset_dir="$work/phantom" \
            || return 1
    done
}

here="$PWD"
nvidia-smi --query-gpu=name,memory.total,driver_version --format=csv 2>/dev/null
tests=(tests/losses/test_l1ace_cuda.py tests/losses/test_l1ace_golden.py tests/functional/test_fused_triton.py tests/functional/test_binning_triton.py
    tests/functional/test_backends.py)
if [ -n "$dry" ]; then
    part tests 300 python3 -m pytest -q -p no:cacheprovider tests/losses/test_l1ace_cuda.py
else
    part tests "$([ -n "$quick" ] && echo 110 || echo 170)" python3 -m pytest -v -p no:cacheprovider --durations=12 -k "not without_the_fused and not test_bins and not test_loss_and_gradient" "${tests[@]}"
fi
bench losses 60
bench step 80
bench bins 50
bench sampling 45
bench ddp 40
bench amp 45
export -f end_to_end
export here work
part end_to_end "$([ -n "$quick" ] && echo 90 || echo 110)" bash -c end_to_end
python3 benchmarks/bench_gpu.py table --output "$work/parts" | tee -a "$output/gpu.log"
cp "$work/parts/table.md" "$work/parts/table.json" "$output"
! grep -qv "exit code 0" "$summary"
